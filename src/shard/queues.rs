//! Queue topics (connmix section 3) over all shards: clients push, API connections consume.
//!
//! For those who push (rules of connmix clients) this is everything there is:
//!
//! ```text
//! impl Shard {
//!     /// Appends a message of a client of this shard to a queue topic (section 3.1).
//!     ///
//!     /// `client` names the pusher in the event (`p.c`); it may have left already (events of
//!     /// closing clients), then errors are only counted. `d` is the JSON text of `p.d` (section
//!     /// 3.5); it is copied once, into the WebSocket frame that consumers get.
//!     ///
//!     /// # Errors
//!     /// The message was not and will not be queued: see `PushError`. Counted here, once. The error
//!     /// is returned at once only when the topic's home shard is this one; otherwise the push
//!     /// returns `Ok(Pushed::Queued)` and a refusal arrives later through
//!     /// `Shard::connmix_push_failed(client, error)`.
//!     ///
//!     /// `Ok(Pushed::Full)`, only with `connmix.queue.full = "block"`: the message is queued, but
//!     /// the topic has no more room: do not handle further messages of this client until
//!     /// `Shard::connmix_push_room(client)` is called (once per `Full`). Nothing is lost meanwhile.
//!     pub(super) fn queue_push(
//!         &mut self,
//!         client: ConnId,
//!         topic: &str,
//!         d: &str,
//!     ) -> Result<Pushed, PushError>;
//! }
//!
//! // Hooks that the client side (shard/connmix.rs) provides:
//! impl Shard {
//!     /// A push of this client was refused on another shard. The client may have left. The rule's
//!     /// `on_push_error` decides.
//!     pub(super) fn connmix_push_failed(&mut self, client: ConnId, error: PushError);
//!     /// There is room again for a client that was told `Pushed::Full`. The client may have left.
//!     pub(super) fn connmix_push_room(&mut self, client: ConnId);
//!     /// `conn.call set_context*` (section 4) on a connmix client of this shard: each value is JSON
//!     /// text, `None` deletes the key. False: the context would grow beyond its limit, nothing was
//!     /// changed. Wakes a client that waits for one of the keys.
//!     pub(super) fn connmix_set_context(
//!         &mut self,
//!         slot: u32,
//!         values: &[(Box<str>, Option<Box<str>>)],
//!     ) -> bool;
//! }
//!
//! // hub::queues
//! pub enum Pushed { Queued, Full }
//! /// Full: the topic has `topic_size` messages. TooManyTopics: `topics_max` exist already.
//! /// BadTopic: empty, longer than 255 bytes or with control characters.
//! /// TooLarge: the event would be larger than `connmix.api.event_high_water_bytes`.
//! pub enum PushError { Full, TooManyTopics, BadTopic, TooLarge }
//! // hub::context::Context: the map of a connection's context values, JSON texts by key, sorted by
//! // bytes of the key, with the limit of 64 KiB (`set`, `get`, `to_json`, `bytes`).
//! // hub::client_id::ClientIds: `encode(ConnId) -> i64`, in the shard as `self.client_ids`.
//! ```
