//! The lists that name all protocols: the numbers that they are given, and the letters that threads
//! send to a shard. Plain data.

pub mod letters;
pub mod numbers;
