//! IM end to end: a gateway with two shards, clients over TCP and WebSocket, backends (IM
//! specification). The behavioural tests of its section 18:
//!
//! | id | shown by |
//! |---|---|
//! | B1 | `time::a_connection_that_says_nothing_is_closed_after_login_timeout` |
//! | B2 | `time::silence_after_the_login_ends_the_connection_in_time` |
//! | B3 | `time::pings_keep_a_connection_open` |
//! | B4, B5 | `frames::a_login_byte_by_byte`, `frames::two_frames_in_one_write` |
//! | B6 | `rooms::members_get_what_others_say_and_never_their_own` |
//! | B7 | `rooms::the_server_says_who_and_when` |
//! | B8, B9 | `rooms::guests_and_strangers_are_not_heard` |
//! | B10 | `rooms::after_leaving_nothing_follows` |
//! | B11 | `rooms::a_flood_within_one_delay_is_batched_within_the_bounds` |
//! | B12 | `frames::notifications_are_compressed_for_those_who_read_that` |
//! | B13 | `limits::the_eleventh_error_closes` |
//! | B14 | `time::a_reserved_command_only_restarts_the_clock` |
//! | B15 | `frames::logout_ends_without_a_byte_and_leaves_the_rooms` |
//! | B16 to B18 | `websocket` |
//! | B19 | `login::a_guest_becomes_a_user_and_keeps_its_rooms` |
//! | B20 | `time::half_a_frame_is_given_up_after_frame_timeout` |
//! | B21 | `frames::the_first_frame_decides_what_len_counts` |

mod common;
#[path = "im/crowd.rs"]
mod crowd;
#[path = "im/dialects.rs"]
mod dialects;
#[path = "im/frames.rs"]
mod frames;
#[path = "im/limits.rs"]
mod limits;
#[path = "im/login.rs"]
mod login;
#[path = "im/reach.rs"]
mod reach;
#[path = "im/rooms.rs"]
mod rooms;
#[path = "im/settings.rs"]
mod settings;
#[path = "im/support.rs"]
mod support;
#[path = "im/time.rs"]
mod time;
#[path = "im/vectors.rs"]
mod vectors;
#[path = "im/websocket.rs"]
mod websocket;
