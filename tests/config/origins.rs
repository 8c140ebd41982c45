//! Lists of origins (`allow_origin`): what they mean, and what can not be meant.

use ringway::config::model::Origins;

use crate::{LISTENERS, bad, good, load_env};

const TABLES: [&str; 3] = ["netsvr.customer", "xxim", "connmix"];

fn lists_of(text: &str) -> Vec<Origins> {
    let config = good(text);
    vec![
        config.netsvr.customer.allow_origin,
        config.xxim.allow_origin,
        config.connmix.api.allow_origin,
    ]
}

#[test]
fn one_mechanism_reads_the_lists_of_all_protocols() {
    assert!(lists_of("").iter().all(Origins::is_empty));
    let text = |table: &&str| {
        format!("[{table}]\nallow_origin = [\"https://example.com\", \".example.org\"]\n")
    };
    for list in lists_of(&TABLES.iter().map(text).collect::<String>()) {
        assert!(list.lists(b"https://example.com") && list.lists(b"http://www.example.org:81"));
        assert!(!list.lists(b"https://example.com.example") && !list.lists(b""));
    }
}

#[test]
fn what_can_not_be_an_origin_is_refused_with_what_to_write() {
    for table in TABLES {
        for (value, says) in [
            ("", "an empty text names no origin"),
            ("*", "no wildcards"),
            ("https://*.example.com", "no wildcards"),
            ("https://example.com/", "without a slash"),
            ("wss://example.com", "has http or https"),
            ("localhost:3000", "a port needs its scheme"),
            ("a b", "neither an origin nor a host"),
        ] {
            let list = format!("allow_origin = [\"https://a.example\", \"{value}\"]");
            let error = bad(&format!("[{table}]\n{list}\n{LISTENERS}"));
            assert_eq!((&*error.key, error.line), (&*format!("{table}.allow_origin"), Some(2)));
            let sentence = error.to_string();
            assert!(sentence.contains(says) && sentence.contains("\".example.com\""), "{sentence}");
            assert!(sentence.contains(&format!("{value:?}: ")), "{sentence}");
        }
    }
}

#[test]
fn texts_that_an_origin_contains_are_a_mode_of_netsvr_alone() {
    let contains = "[netsvr.customer]\nallow_origin_mode = \"contains\"\n";
    let list = good(&format!("{contains}allow_origin = [\"://exam\"]"));
    let list = list.netsvr.customer.allow_origin;
    assert!(list.lists(b"https://example.com") && !list.lists(b"https://www.example.com"));
    let error = bad(&format!("{contains}allow_origin = [\"\"]\n{LISTENERS}"));
    assert_eq!((&*error.key, error.line), ("netsvr.customer.allow_origin", Some(3)), "{error}");
    assert!(error.to_string().contains("an empty text"), "{error}");
    let error = bad(&format!("[xxim]\nallow_origin_mode = \"contains\"\n{LISTENERS}"));
    assert_eq!(&*error.key, "xxim.allow_origin_mode", "{error}");
    let env = [("RINGWAY_NETSVR__CUSTOMER__ALLOW_ORIGIN", "a.example, https://b.example")];
    let list = load_env(LISTENERS, &env).expect("two origins").config.netsvr.customer.allow_origin;
    assert!(list.lists(b"http://a.example") && list.lists(b"https://b.example"));
}
