//! Mistakes in rules are found at start, and the message names the rule.

use ringway::config;

use crate::read;

/// What is said about a rule for messages with these actions, and more lines.
fn complaint(rule: &str) -> String {
    let server = format!(
        "[[connmix.server.rule]]\non = \"message\"\ndo = []\n[[connmix.server.rule]]\n{rule}"
    );
    read(&server).expect_err(rule).to_string()
}

#[test]
fn an_error_names_file_line_server_rule_and_event() {
    assert_eq!(
        complaint("on = \"message\"\ndo = [ { send = \"x\" }, { snd = \"x\" } ]"),
        "a.toml:11: connmix.server.0.rule.1 (on = message): action 2 of `do`: snd: there is no \
         such action. Allowed: subscribe, unsubscribe, send, publish, push, set, unset, user, \
         wait, http, close."
    );
}

/// Rules, for messages unless they say otherwise, and what is said about them.
const MISTAKES: &[(&str, [&str; 2])] = &[
    ("", ["`do` is missing", "a list of actions"]),
    ("do = 5", ["`do` is not a list of actions", "close = { code = 1008 }"]),
    ("do = [ 5 ]", ["not a list of actions", ""]),
    ("do = [ {} ]", ["there are 0 actions in one table", "one table for each action"]),
    ("do = [ { send = \"a\", close = {} } ]", ["2 actions in one table", "order"]),
    ("do = [ { send = 5 } ]", ["send: a number where a table belongs", "binary"]),
    ("do = [ { send = { binary = \"*\" } } ]", ["this is not base64", "padding"]),
    ("do = [ { send = \"${jsn.x}\" } ]", ["\"jsn.x\" is not a reference", "json.<path>"]),
    ("do = [ { send = \"${json.l[*]}\" } ]", ["[*] where one text belongs", "lists"]),
    ("do = [ { send = \"${m.1}\" } ]", ["there is no group m.1", "\"re:\" in `when`"]),
    (
        "when = { data = \"re:(a)\" }\ndo = [ { send = \"${m.2}\" } ]",
        ["there is no group m.2", "m.0 to m.1"],
    ),
    ("do = [ { close = { code = 1005 } } ]", ["1005 is not a close code", "1000 to 1003"]),
    ("do = [ { close = { cod = 1 } } ]", ["no such key as `cod`", "code, reason"]),
    ("do = [ { wait = { key = \"k\", timeout = 0 } } ]", ["0 is not a duration", "3600"]),
    ("do = [ { wait = {} } ]", ["`key` is missing", ""]),
    ("do = [ { wait = { key = \"\" } } ]", ["is not a key of the context", ""]),
    (
        "do = [ { set = { a = \"json.x\" } } ]",
        ["\"json.x\" would be taken as it is written", "${json.x}"],
    ),
    (
        "do = [ { push = { topic = \"t\", include = [\"body\"] } } ]",
        ["\"body\" can not be included", "<name>=ctx.<key>"],
    ),
    (
        "do = [ { push = { topic = \"t\", event = \"e\", extra = { event = 1 } } } ]",
        ["\"event\" would be twice", "rename it"],
    ),
    (
        "do = [ { publish = { channel = \"c\", data = \"d\", type = \"json\" } } ]",
        ["no such choice as \"json\"", "\"binary\""],
    ),
    (
        "do = [ { http = { url = \"${json.url}\" } } ]",
        ["host and port are not known at start", "clients could choose"],
    ),
    (
        "do = [ { http = { url = \"http://h${json.x}/\" } } ]",
        ["host and port are not known at start", ""],
    ),
    (
        "do = [ { http = { url = \"http://h/a/../${json.x}\" } } ]",
        ["url: its path has a segment `.` or `..`", "the path that it stands for"],
    ),
    ("do = [ { http = { url = \"http://h/%2e/b\" } } ]", ["has a segment `.` or `..`", ""]),
    (
        "do = [ { http = { url = \"http://h/\", set = { a = \"uid\" } } } ]",
        ["not a JSON pointer", "/uid"],
    ),
    (
        "do = [ { http = { url = \"http://h/\", \
                 on_error = [ { wait = { key = \"k\" } } ] } } ]",
        ["on_error: wait here", "tell and close"],
    ),
    ("when = 5\ndo = []", ["`when` is not a table", ""]),
    ("when = { \"json.a\" = \"re:(\" }\ndo = []", ["not a regular expression", "docs.rs"]),
    ("when = { \"jsn.a\" = 1 }\ndo = []", ["\"jsn.a\" is not a reference", ""]),
    ("when = { \"m.1\" = 1 }\ndo = []", ["known only after all conditions", ""]),
    ("when = { \"json.a\" = [] }\ndo = []", ["there are no alternatives", "one at least"]),
    ("when = { \"json.a\" = [[1]] }\ndo = []", ["a list in a list", ""]),
    (
        "when = { \"json.a\" = \"re:(a)\", \"json.b\" = \"re:(b)\" }\ndo = []",
        ["more than one regular expression", "(?:...)"],
    ),
    ("do = []\nelse = []", ["`else` can never happen", "another rule"]),
    ("on = \"open\"\ndo = [ { send = \"${data}\" } ]", ["there is no message", ""]),
    ("on = \"open\"\ntype = \"text\"\ndo = []", ["`type` is about messages", ""]),
    (
        "on = \"open\"\ndo = [ { push = { topic = \"t\", include = [\"frame\"] } } ]",
        ["there is no frame", ""],
    ),
    ("on = \"close\"\ndo = [ { send = \"x\" } ]", ["the connection has ended", "push"]),
];

#[test]
fn every_mistake_has_an_answer() {
    for (rule, parts) in MISTAKES {
        let on = if rule.starts_with("on = ") { "" } else { "on = \"message\"\n" };
        let text = complaint(&format!("{on}{rule}"));
        let place = text.contains("a.toml:") && text.contains("connmix.server.0.rule.1 (on = ");
        assert!(place, "{rule}: {text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "{rule}: {text}"));
    }
}

#[test]
fn keys_that_do_not_exist_and_values_out_of_bounds_are_refused() {
    for (server, parts) in [
        (
            "[[connmix.server.rule]]\non = \"opn\"\ndo = []",
            ["rule.0.on", "\"open\" or \"message\""],
        ),
        ("[[connmix.server.rule]]\non = \"open\"\nthen = []", ["rule.0.then", "no such key"]),
        ("max_mesage = 5", ["connmix.server.0.max_mesage", "`connmix.server.max_message`"]),
        ("max_message = 0", ["max_message", "1 to 16777216 bytes"]),
        ("read_timeout = 60", ["read_timeout", "a duration, a text like \"5s\""]),
        ("framing = \"udp\"", ["framing", "\"json-line\""]),
    ] {
        let text = read(server).expect_err(server).to_string();
        parts.iter().for_each(|part| assert!(text.contains(part), "{server}: {text}"));
    }
}

#[test]
fn clients_choose_names_only_behind_a_prefix_or_a_pattern() {
    let rule = |when: &str, action: &str| {
        format!("[[connmix.server.rule]]\non = \"message\"\nwhen = {when}\ndo = [ {action} ]\n")
    };
    let names = |name: &str| {
        [
            format!("{{ subscribe = [\"{name}\"] }}"),
            format!("{{ publish = {{ channel = \"{name}\", data = \"x\" }} }}"),
            format!("{{ push = {{ topic = \"{name}\" }} }}"),
        ]
    };
    for action in names("${json.c}") {
        let text = read(&rule("{}", &action)).expect_err(&action).to_string();
        for part in ["could choose any name with ${json.c}", "allow_any_channel = true", "(on = "] {
            assert!(text.contains(part), "{text}");
        }
        assert!(read(&rule("{ \"json.c\" = \"exists\" }", &action)).is_err());
        assert!(read(&rule("{ \"json.d\" = \"re:^a\" }", &action)).is_err());
        assert!(read(&rule("{ \"json.c\" = [\"a\", \"exists\"] }", &action)).is_err());
        read(&rule("{ \"json.c\" = \"re:^a\" }", &action)).expect("a pattern");
        read(&rule("{ \"json.c\" = [\"a\", \"b\"] }", &action)).expect("constants");
        let allowed = format!("allow_any_channel = true\n{}", rule("{}", &action));
        read(&allowed).expect("the operator wants it");
    }
    for name in ["x:${json.c}", "${client_id}", "${ctx.uid}@x", "${node_id}:${remote_addr}"] {
        names(name).iter().for_each(|action| drop(read(&rule("{}", action)).expect(action)));
    }
    for name in ["${data}", "${header.a}", "${query.a}", "${client_id}${json.c}"] {
        names(name).iter().for_each(|action| drop(read(&rule("{}", action)).expect_err(action)));
    }
    read(&rule("{}", "{ subscribe = [\"${json.l[*]}\"] }")).expect_err("any name of a list");
}

/// An expression that everything matches holds nobody to anything.
#[test]
fn a_pattern_that_lets_everything_through_is_none() {
    let rule = |when: &str, name: &str| {
        read(&format!(
            "[[connmix.server.rule]]\non = \"message\"\nwhen = {when}\n\
             do = [ {{ subscribe = [\"{name}\"] }} ]\n"
        ))
    };
    for pattern in ["", ".*", ".+", "^.*$", "^[^ ]{1,64}$", "^.{8}$", "room|.*", "\\\\S"] {
        for test in [format!("\"re:{pattern}\""), format!("[\"a\", \"re:{pattern}\"]")] {
            let when = format!("{{ \"json.c\" = {test} }}");
            let text = rule(&when, "${json.c}").expect_err(&when).to_string();
            assert!(text.contains("could choose any name with ${json.c}"), "{text}");
            assert!(text.contains("does not let everything through"), "{text}");
            rule(&when, "room:${json.c}").expect("behind a prefix");
        }
    }
    for pattern in ["^[a-z]+$", "^room", "room", "^[^@ ]+@depth$", "\\\\d"] {
        rule(&format!("{{ \"json.c\" = \"re:{pattern}\" }}"), "${json.c}").expect(pattern);
    }
    let data = |pattern: &str, name: &str| rule(&format!("{{ data = \"re:{pattern}\" }}"), name);
    for (pattern, name) in [
        ("^join (.*)$", "${m.1}"),
        (".*", "${m.0}"),
        ("^join (\\\\S+)$", "${m.1|base64}"),
        ("^join@.*$", "${data|part:@:2}"),
        ("^(join|leave) (.+)$", "${m.2}"),
    ] {
        assert!(data(pattern, name).is_err(), "{pattern} {name}");
    }
    for (pattern, name) in [
        ("^join (room-.*)$", "${m.1}"),
        ("^join (.*)$", "${m.0|part: :1}"),
        ("^join@[a-z]+$", "${data|part:@:2}"),
        ("^(join|leave) (.+)$", "${m.1}"),
        ("^join (.*)$", "x${m.1}"),
    ] {
        data(pattern, name).expect(pattern);
    }
    rule("{ \"ctx.uid\" = \"re:(.*)\" }", "${m.1}").expect("a backend has set it");
}

#[test]
fn what_a_client_has_put_into_the_context_is_its_choice_too() {
    let rules = |set: &str, when: &str| {
        format!(
            "[[connmix.server.rule]]\non = \"open\"\n\
             do = [ {{ set = {{ a = \"{set}\", b = 1 }} }} ]\n\
             [[connmix.server.rule]]\non = \"message\"\n\
             do = [ {{ set = {{ c = \"x${{ctx.a}}\" }} }} ]\n\
             [[connmix.server.rule]]\non = \"message\"\nwhen = {when}\n\
             do = [ {{ subscribe = [\"${{ctx.c}}\"] }} ]\n"
        )
    };
    read(&rules("${query.x}", "{}")).expect_err("copied twice");
    read(&rules("${remote_addr}", "{}")).expect("not chosen");
    read(&rules("${query.x}", "{ \"ctx.c\" = \"re:^room\" }")).expect("held to a pattern");
    let otherwise = rules("${query.x}", "{ \"ctx.c\" = \"re:^room\" }")
        + "else = [ { subscribe = [\"${ctx.c}\"] } ]";
    read(&otherwise).expect_err("in `else` the pattern does not hold");
}

#[test]
fn a_listener_or_route_says_whose_rules_it_follows() {
    let text = |listener: &str, servers: &[&str]| {
        let servers: String =
            servers.iter().map(|name| format!("[[connmix.server]]\nname = \"{name}\"\n")).collect();
        format!("[[listener]]\nbind = \"127.0.0.1:0\"\n{listener}\n{servers}")
    };
    let tcp = "protocol = \"connmix\"";
    let route =
        |rest: &str| format!("routes = [ {{ path = \"/c\", protocol = \"connmix\"{rest} }} ]");
    let good = |text: &str| drop(config::all::from_text(text, "a.toml").expect(text));
    good(&text(tcp, &["a"]));
    good(&text(&route(""), &["a"]));
    good(&text(&route(", server = \"b\""), &["a", "b"]));
    for (listener, servers, parts) in [
        (tcp.to_owned(), &[][..], ["listener.0.server", "there is no [[connmix.server]]"]),
        (tcp.to_owned(), &["a", "b"][..], ["it is missing, and there are several", "\"a\", \"b\""]),
        (route(""), &["a", "b"][..], ["listener.0.routes.0.server", "it is missing"]),
        (route(", server = \"c\""), &["a"][..], ["routes.0.server = \"c\"", "Allowed: \"a\""]),
        (
            "protocol = \"im\"\nserver = \"a\"".to_owned(),
            &["a"][..],
            ["listener.0.server", "only clients"],
        ),
        (tcp.to_owned(), &["a", "a"][..], ["connmix.server.1.name", "has this name already"]),
        (tcp.to_owned(), &[""][..], ["connmix.server.0.name", "it is missing"]),
    ] {
        let text = text(&listener, servers);
        let error = config::all::from_text(&text, "a.toml").expect_err(&text).to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{text}: {error}"));
    }
}
