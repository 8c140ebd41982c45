//! What the services of protocols have in common: the client and the gRPC calls with which they
//! reach backends, the servers at which backends reach them, and the way to the shards. On tokio;
//! no protocol is named here.

pub mod http_client;
pub mod origin;
pub mod places;
pub mod shards;
