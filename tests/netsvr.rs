//! netsvr end to end: a gateway with two shards, clients and business processes over real sockets.
//!
//! Each row of the specification is a test here or a line of a table in one. What the original does
//! badly (specification section 11), and the tests that show that it is better here:
//!
//! | id | shown by |
//! |---|---|
//! | W1 | `ordering.rs`: `open_message_close_come_in_that_order_1000_times_of_1000` |
//! | W1 | `ordering.rs`: `a_single_cast_right_before_force_offline_is_delivered_200_times_of_200` |
//! | W2 | `events::a_worker_that_stops_reading_is_closed_and_others_get_its_events` |
//! | W3 | `frames::a_frame_that_announces_more_than_there_can_be_is_too_big_and_hurts_nobody` |
//! | W4 | `frames::exactly_the_limit_passes_and_one_byte_more_is_too_big` |
//! | W4 | `frames::the_limit_holds_without_any_business_as_well` |
//! | W4 | `upgrade::a_head_of_16_kib_is_accepted_and_a_longer_one_refused` |
//! | W4 | `compression::an_inflate_bomb_is_stopped_at_the_limit` |
//! | W5 | `upgrade::row_1_a_head_that_does_not_end_gets_nothing_but_the_end_of_its_time` |
//! | W5 | `limits::max_online_refuses_with_1013_and_is_not_counted_as_the_limiter` |
//! | W6 | `limits::a_client_that_does_not_read_is_closed_and_what_it_missed_is_counted` |
//! | W7 | `upgrade::row_5_another_path_is_not_found_and_the_query_is_not_part_of_it` |
//! | W7 | `upgrade::row_8_connection_is_a_list_of_tokens_in_any_case` |
//! | W7 | `upgrade::the_first_offered_sub_protocol_is_accepted` |
//! | W7 | `secure::clients_and_workers_talk_over_tls` |
//! | W8 | `closing::nobody_hears_of_connections_that_were_never_opened` |
//! | W8 | `callbacks::the_close_callback_is_for_those_who_were_opened_only` |
//! | W9 | `callbacks::messages_wait_until_the_open_is_decided` |
//! | W9 | `closing::who_is_told_to_go_is_not_online_and_nothing_changes_or_reaches_it` |
//! | W10 | `closing::opens_and_resets_leave_nobody_behind` |
//! | W10 | `callbacks::a_client_that_leaves_while_the_open_is_pending_leaves_no_trace` |
//! | W11 | `events::what_a_worker_was_not_sent_when_it_died_goes_to_the_next` |
//! | W11 | `events::without_a_worker_events_are_dropped_and_counted_and_the_client_stays` |
//! | W11 | `limits::clients_wait_for_a_full_worker_and_nothing_is_lost` |
//! | W12 | `events::session_and_topics_can_be_left_out_of_every_transfer` |
//! | W13 | `callbacks::a_failed_callback_closes_with_a_fixed_text` |
//! | W13 | `callbacks::only_so_many_callbacks_are_under_way_and_the_others_wait_their_turn` |
//! | W14 | `closing::a_silent_client_is_closed_between_1_and_1_1_intervals` |
//! | W14 | `limits::a_window_lasts_exactly_as_long_as_configured` |
//! | W15 | `limits::limit_sets_rate_and_burst_and_leaves_what_is_not_positive` |
//! | W15 | `limits::limit_can_switch_on_what_was_off` |
//! | W16 | `business::an_undecodable_query_gets_the_empty_answer_in_its_turn` |
//! | W17 | `closing::a_shutdown_says_goodbye_to_clients_and_tells_workers_about_all_of_them` |
//! | W18 | `limits::messages_that_are_dropped_are_counted_and_not_logged` |
//! | W19 | `secure::a_worker_without_a_certificate_is_not_served` |
//! | W19 | `limits::connections_max_closes_what_comes_too_much` |
//! | W20 | `compression::a_push_to_many_is_compressed_once_and_shared_by_all_shards` |
//! | W21 | `events::bytes_that_are_not_utf8_are_replaced` |
//! | W22 | `upgrade::the_defaults_let_clients_in` |
//! | W23 | `closing::a_second_gateway_on_the_same_ports_does_not_start` |
//! | W24 | `limits::prometheus_shows_the_same_counts`; the rest of W24 is later work |

mod common;

#[path = "netsvr/business.rs"]
mod business;
#[path = "netsvr/callbacks.rs"]
mod callbacks;
#[path = "netsvr/closing.rs"]
mod closing;
#[path = "netsvr/commands.rs"]
mod commands;
#[path = "netsvr/compression.rs"]
mod compression;
#[path = "netsvr/events.rs"]
mod events;
#[path = "netsvr/frames.rs"]
mod frames;
#[path = "netsvr/generation5.rs"]
mod generation5;
#[path = "netsvr/half_closed.rs"]
mod half_closed;
#[path = "netsvr/http_server.rs"]
mod http_server;
#[path = "netsvr/limits.rs"]
mod limits;
#[path = "netsvr/queries.rs"]
mod queries;
#[path = "netsvr/registration.rs"]
mod registration;
#[path = "netsvr/secure.rs"]
mod secure;
#[path = "netsvr/support.rs"]
mod support;
#[path = "netsvr/upgrade.rs"]
mod upgrade;

/// The table above would be worth nothing if its tests were renamed.
#[test]
fn the_tests_that_the_table_names_exist() {
    let files = [
        ("ordering.rs", include_str!("ordering.rs")),
        ("business", include_str!("netsvr/business.rs")),
        ("callbacks", include_str!("netsvr/callbacks.rs")),
        ("closing", include_str!("netsvr/closing.rs")),
        ("compression", include_str!("netsvr/compression.rs")),
        ("events", include_str!("netsvr/events.rs")),
        ("frames", include_str!("netsvr/frames.rs")),
        ("limits", include_str!("netsvr/limits.rs")),
        ("secure", include_str!("netsvr/secure.rs")),
        ("upgrade", include_str!("netsvr/upgrade.rs")),
    ];
    let mut weaknesses = std::collections::BTreeSet::new();
    for row in include_str!("netsvr.rs").lines().filter_map(|line| line.strip_prefix("//! | W")) {
        let (number, shown_by) = row.split_once(" | ").expect("two columns");
        weaknesses.insert(number.parse::<u32>().expect("a number"));
        let mut names = shown_by.split('`').nth(1).expect("a name").split("::");
        let file = names.next().expect("a file");
        let test = names.next().or(shown_by.split('`').nth(3)).expect("a test");
        let text = files.iter().find(|(name, _)| *name == file).expect("a file of the list").1;
        assert!(text.contains(&format!("#[test]\nfn {test}()")), "{file} has no test {test}");
    }
    assert_eq!(weaknesses, (1..=24).collect());
}
