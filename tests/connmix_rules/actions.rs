//! Conditions, references and actions, one by one.

use ringway::protocols::connmix::rules::{Answer, Event, Resumed};

use crate::Client;

/// A client whose messages run these actions.
fn does(actions: &str) -> Client {
    Client::new(&format!("[[connmix.server.rule]]\non = \"message\"\ndo = {actions}\n"))
}

/// Whether a message fits these conditions.
fn fits(when: &str, message: &str, context: &[(&str, &str)]) -> bool {
    let rule = format!("[[connmix.server.rule]]\non = \"message\"\nwhen = {when}\ndo = []\n");
    let mut client = Client::new(&rule);
    context.iter().for_each(|(key, value)| client.set(key, value));
    match &client.text(message)[..] {
        [] => true,
        [effect] if effect == "no rule" => false,
        effects => panic!("{effects:?}"),
    }
}

#[test]
fn values_are_equal_as_in_json() {
    let yes = |when: &str, message: &str| assert!(fits(when, message, &[]), "{when} {message}");
    let no = |when: &str, message: &str| assert!(!fits(when, message, &[]), "{when} {message}");
    yes(r#"{ "json.a" = "x" }"#, r#"{"a":"\u0078"}"#);
    no(r#"{ "json.a" = "1" }"#, r#"{"a":1}"#);
    no(r#"{ "json.a" = 1 }"#, r#"{"a":"1"}"#);
    yes(r#"{ "json.a" = 1 }"#, r#"{"a":1.0}"#);
    yes(r#"{ "json.a" = 1.5 }"#, r#"{"a":15e-1}"#);
    no(r#"{ "json.a" = 9007199254740993 }"#, r#"{"a":9007199254740992}"#);
    yes(r#"{ "json.a" = true }"#, r#"{"a":true}"#);
    no(r#"{ "json.a" = true }"#, r#"{"a":"true"}"#);
    yes(r#"{ json.a.0.b = 1 }"#, r#"{"a":[{"b":1}]}"#);
    yes(r#"{ "json.a.0" = 1 }"#, r#"{"a":{"0":1}}"#);
    yes(r#"{ "json.a" = ["x", 2, "re:^y"] }"#, r#"{"a":"yes"}"#);
    no(r#"{ "json.a" = ["x", 2, "re:^y"] }"#, r#"{"a":3}"#);
    yes(r#"{ "json.a" = "missing" }"#, r#"{"a":null}"#);
    no(r#"{ "json.a" = "exists" }"#, r#"{"a":null}"#);
    yes(r#"{ "json" = "missing" }"#, "{");
    yes(r#"{ "json.a" = "re:^[0-9]+$" }"#, r#"{"a":123}"#);
    yes(r#"{ "data" = "re:(?i)^HELLO" }"#, "hello you");
    yes(r#"{ "query.room" = "7", "header.x-device" = "phone", "path" = "/chat" }"#, "x");
    yes(r#"{ "query.token" = "s e" }"#, "x");
    assert!(fits(r#"{ "ctx.u.id" = 5 }"#, "x", &[("u", r#"{"id":5}"#)]));
    assert!(!fits(r#"{ "ctx.u" = "exists" }"#, "x", &[("u", "null")]));
}

#[test]
fn references_and_filters() {
    let mut client = does(
        r#"[ { send = "${client_id} ${node_id} ${remote_addr} ${path} ${data|part: :2} $${x}" },
             { send = "${json.a|json} ${json.a} ${json.b} ${json.b|json} ${json.b.0|base64}" },
             { send = "${header.host} ${query.token} ${data|base64}" } ]"#,
    );
    let sent = client.text(r#"{"a":"\"q\"", "b":[1,{}]}"#);
    assert_eq!(
        sent,
        [
            r#"send 1463784730422935552 1 192.0.2.7:1234 /chat "b":[1,{}]} ${x}"#,
            r#"send "\"q\"" "q" [1,{}] [1,{}] MQ=="#,
            "send 127.0.0.1:6790 s e eyJhIjoiXCJxXCIiLCAiYiI6WzEse31dfQ==",
        ]
    );
}

#[test]
fn what_is_not_there_makes_its_action_fail_and_only_that() {
    let actions = r#"[ { send = "${json.x}" }, { send = "${data|part:@:2}" }, { send = "on" } ]"#;
    assert_eq!(does(actions).text("{}"), ["failed 0 send", "failed 0 send", "send on"]);
    let strict =
        format!("strict = true\n[[connmix.server.rule]]\non = \"message\"\ndo = {actions}");
    assert_eq!(Client::new(&strict).text("{}"), ["failed 0 send", "close 1008 rule failed"]);
}

#[test]
fn one_list_expands_to_many_channels() {
    let mut client = does(r#"[ { subscribe = ["a:${json.l[*]}:${json.n}", "b:x"] } ]"#);
    let many = client.text(r#"{"n":1,"l":["x","\u4f60",3]}"#);
    assert_eq!(many, ["+a:x:1", "+a:\u{4f60}:1", "+a:3:1", "+b:x"]);
    assert_eq!(client.text(r#"{"n":1,"l":[]}"#), ["+b:x"]);
    for bad in [r#"{"n":1,"l":["x","a b"]}"#, r#"{"n":1,"l":["x",null]}"#, r#"{"n":1,"l":"x"}"#] {
        assert_eq!(client.text(bad), ["failed 0 subscribe"], "{bad}: all or nothing");
    }
    let long = format!(r#"{{"n":1,"l":["{}"]}}"#, "x".repeat(252));
    assert_eq!(client.text(&long), ["failed 0 subscribe"]);
}

#[test]
fn rooms_of_im_are_entered_by_name_only() {
    let rule = r#"
        [[connmix.server.rule]]
        on = "message"
        when = { "json.c" = "re:^c" }
        do = [ { subscribe = ["${json.c}"] }, { publish = { channel = "${json.c}", data = "x" } } ]
    "#;
    let mut client = Client::new(rule);
    assert_eq!(client.text(r#"{"c":"cats"}"#), ["+cats", "publish cats x"]);
    assert_eq!(client.text(r#"{"c":"cr:lobby"}"#), ["failed 0 subscribe", "failed 0 publish"]);
    let mut named = does(r#"[ { subscribe = ["cr:${json.c}"] } ]"#);
    assert_eq!(named.text(r#"{"c":"lobby"}"#), ["+cr:lobby"]);
    let mut prefix = does(r#"[ { subscribe = ["c${json.c}"] } ]"#);
    assert_eq!(prefix.text(r#"{"c":"r:lobby"}"#), ["failed 0 subscribe"]);
}

#[test]
fn binary_goes_out_and_in_as_base64() {
    let mut client = does(
        r#"[ { send = { binary = "AAEC/w==" } }, { send = { binary = "${json.b}" } },
             { publish = { channel = "c", data = "${data|base64}", type = "binary" } },
             { push = { topic = "t", include = ["frame"] } } ]"#,
    );
    assert_eq!(
        client.binary(&[0, 1, 2, 0xff]),
        [
            "send [00, 01, 02, ff]",
            "failed 0 send",
            "publish c [00, 01, 02, ff]",
            r#"push t {"frame":{"type":"binary","data":"AAEC/w==","finish":true}}"#,
        ]
    );
    assert_eq!(client.text(r#"{"b":"aGk="}"#)[1], "send [68, 69]");
    assert_eq!(client.text(r#"{"b":"*"}"#)[1], "failed 0 send");
}

#[test]
fn d_is_what_the_rule_says_sorted() {
    let mut client = does(
        r#"[ { push = { topic = "t:${json.k}", event = "e:${json.k}",
               include = ["query", "remote_addr", "who=ctx.u.name"],
               extra = { n = 1, z = "${json.v}", s = "x ${json.v}", o = { a = [1, "b"] } } } } ]"#,
    );
    client.set("u", r#"{"name":"\u00e9"}"#);
    assert_eq!(
        client.text(r#"{"k":"a","v":{"x":1}}"#),
        [concat!(
            r#"push t:a {"event":"e:a","n":1,"o":{"a":[1,"b"]},"#,
            r#""query":{"room":"7","token":"s e"},"remote_addr":"192.0.2.7:1234","#,
            r#""s":"x {\"x\":1}","who":"\u00e9","z":{"x":1}}"#
        )]
    );
    let mut empty = does(r#"[ { push = { topic = "t", include = ["uid=ctx.uid"] } } ]"#);
    assert_eq!(empty.text("x"), ["push t []"]);
}

#[test]
fn values_keep_their_type_in_the_context() {
    let mut client = does(
        r#"[ { set = { a = "${json.a}", b = "x${json.a}", c = 5, d = "${data}" } },
             { send = "${ctx.a} ${ctx.b} ${ctx|json}" }, { unset = ["b", "d"] },
             { user = "u${ctx.a}" } ]"#,
    );
    let effects = client.text(r#"{"a":10000000000000000001}"#);
    assert_eq!(
        effects[1],
        concat!(
            r#"send 10000000000000000001 x10000000000000000001 {"a":10000000000000000001,"#,
            r#""b":"x10000000000000000001","c":5,"d":"{\"a\":10000000000000000001}"}"#
        )
    );
    assert_eq!(effects[2], r#"context {"a":10000000000000000001,"c":5}"#);
    assert_eq!(effects[3], "user u10000000000000000001");
    let mut large = does(r#"[ { set = { a = "${data}" } } ]"#);
    assert_eq!(large.text(&"x".repeat(70_000)), ["failed 0 set"]);
}

#[test]
fn an_event_goes_on_where_it_waited() {
    let rules = r#"
        [[connmix.server.rule]]
        on = "message"
        when = { "json.op" = "re:^(a|b)$" }
        do = [ { wait = { key = "k" } }, { send = "${m.1} ${json.op} ${ctx.k}" } ]
        continue = true

        [[connmix.server.rule]]
        on = "message"
        do = [ { http = { url = "http://h/${json.op}?x=${json.q}", method = "get" } },
               { send = "${data}" } ]
    "#;
    let mut client = Client::new(rules);
    let message = r#"{"op":"b","q":"a/b &"}"#;
    assert_eq!(client.text(message), [""; 0]);
    client.set("k", "\"v\"");
    assert_eq!(client.resume(Resumed::Waited), ["send b b v"]);
    let Some(Answer::Call(call)) = client.waits.as_ref().map(|waits| waits.awaits.clone()) else {
        panic!("{:?}", client.waits)
    };
    assert_eq!((call.url.as_str(), &*call.method), ("http://h/b?x=a%2Fb%20%26", "GET"));
    assert_eq!(call.answer_bytes_max, 0);
    assert_eq!(client.resume(Resumed::Answered(b"anything")), [format!("send {message}")]);
    // A key that never comes does not end the rule.
    let mut late = Client::new(rules);
    late.text(message);
    assert_eq!(late.resume(Resumed::Waited), ["failed 0 send"]);
    assert!(late.waits.is_some());
}

/// What a client says never leads a request to another path.
#[test]
fn a_reference_makes_no_segment_that_climbs() {
    let url = |template: &str, value: &str| {
        let url = format!("http://h/{template}");
        let mut client = does(&format!(
            r#"[ {{ http = {{ url = "{url}", on_error = [ {{ send = "no" }} ] }} }} ]"#
        ));
        let effects = client.text(&serde_json::json!({ "a": value }).to_string());
        match client.waits.map(|waits| waits.awaits) {
            Some(Answer::Call(call)) => Ok(call.url),
            _ => Err(effects),
        }
    };
    let failed = Err(vec!["failed 0 http".to_owned(), "send no".to_owned()]);
    for (template, value) in [
        ("users/${json.a}/name", ".."),
        ("users/${json.a}/name", "."),
        ("users/${json.a}", ".."),
        ("users/${json.a}", "../admin"),
        ("users/${json.a}", "x/../../admin"),
        ("users/${json.a}", "..\\admin"),
        ("users/${json.a}", "%2e%2e"),
        ("users/${json.a}", "%2E."),
        ("users/${json.a}", "%252e%252e"),
        ("users/${json.a}", "..;x"),
        ("users/.${json.a}/name", "."),
        ("users/.${json.a}/name", ""),
        ("users/%2e${json.a}/name", "%2e"),
        ("users/${json.a}${json.a}", "."),
        ("users/${json.a}?x=1", ".."),
    ] {
        assert_eq!(url(template, value), failed, "{template} {value}");
    }
    for (template, value, expected) in [
        ("users/${json.a}/name", "...", "users/.../name"),
        ("users/${json.a}", "a.b", "users/a.b"),
        ("users/${json.a}", "..a", "users/..a"),
        ("users/x${json.a}", "..", "users/x.."),
        ("users/${json.a}", "", "users/"),
        ("users?path=${json.a}", "/../..", "users?path=%2F..%2F.."),
        ("users#${json.a}", "..", "users#.."),
    ] {
        assert_eq!(url(template, value), Ok(format!("http://h/{expected}")), "{template} {value}");
    }
}

#[test]
fn text_ping_is_answered_before_the_rules() {
    let rules = "text_ping = true\n[[connmix.server.rule]]\non = \"message\"\n\
                 do = [ { send = \"rule\" } ]\n";
    let mut client = Client::new(rules);
    assert_eq!(client.text("ping"), ["pong"]);
    assert_eq!(client.text(" ping\r\n"), ["pong"]);
    assert_eq!(client.text("PING"), ["send rule"]);
    let mut without = does(r#"[ { send = "rule" } ]"#);
    assert_eq!(without.text("ping"), ["send rule"]);
}

#[test]
fn json_lines_are_requests_or_the_end() {
    let rules = "framing = \"json-line\"\n[[connmix.server.rule]]\non = \"message\"\n\
                 do = [ { send = \"${json.method}\" } ]\n";
    let mut client = Client::new(rules);
    client.stream = true;
    assert_eq!(client.text(r#"{"method":"a","params":[]}"#), ["send a"]);
    for bad in ["", "x", "[]", r#"{"method":"a"}"#, r#"{"params":1}"#] {
        assert_eq!(client.text(bad), ["violation 1007"], "{bad}");
    }
    client.stream = false;
    assert_eq!(client.text("x"), ["failed 0 send"], "WebSocket has messages of its own");
}

#[test]
fn a_tcp_client_has_no_headers() {
    let rules = "[[connmix.server.rule]]\non = \"open\"\n\
                 do = [ { push = { topic = \"t\", include = [\"headers\"] } },\n\
                 { send = \"hi\" } ]\n";
    let mut client = Client::new(rules);
    client.stream = true;
    assert_eq!(client.event(Event::Open), ["failed 0 push", "send hi"]);
}

#[test]
fn deep_json_is_no_json() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(fits(r#"{ json = "exists" }"#, &nested(64), &[]));
    assert!(!fits(r#"{ json = "exists" }"#, &nested(65), &[]));
    assert!(!fits(r#"{ json = "exists" }"#, &"[".repeat(60_000), &[]));
}

#[test]
fn what_is_behind_a_push_waits_for_a_store_and_a_last_push_does_not() {
    let actions = r#"[ { push = { topic = "a" } },
        { push = { topic = "b", event = "e" } }, { send = "ok" },
        { push = { topic = "c" } } ]"#;
    let mut here = does(actions);
    let all = ["push a [m]", "push b", "send ok", "push c [m]"];
    assert_eq!(here.text("m").len(), all.len());
    assert_eq!(here.waits, None, "what becomes of each is known at once");
    let mut client = does(actions);
    client.cluster = true;
    for pushed in [1, 1] {
        let effects = if client.waits.is_none() { client.text("m") } else { client.pushed() };
        assert_eq!(effects.len(), pushed, "{effects:?}");
        assert_eq!(client.waits.as_ref().map(|waits| &waits.awaits), Some(&Answer::Push));
    }
    let rest = client.pushed();
    assert_eq!((rest.len(), &*rest[0], client.waits), (2, "send ok", None));
}

#[test]
fn on_error_and_rules_about_the_end_wait_for_a_push_as_well() {
    let mut client = does(
        r#"[ { http = { url = "http://127.0.0.1/", on_error = [
            { push = { topic = "a" } }, { close = { code = 4000 } } ] } }, { send = "never" } ]"#,
    );
    client.cluster = true;
    assert_eq!(client.text("m"), [""; 0]);
    assert_eq!(client.resume(Resumed::Failed).len(), 2, "failed, push");
    assert_eq!(client.pushed(), ["close 4000 "]);
    let rule = "[[connmix.server.rule]]\non = \"close\"\n\
        do = [ { push = { topic = \"a\" } }, { publish = { channel = \"c\", data = \"x\" } } ]\n";
    let mut client = Client::new(rule);
    client.cluster = true;
    assert_eq!(client.close().len(), 1);
    assert_eq!(client.pushed(), ["publish c x"]);
}
