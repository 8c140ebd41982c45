//! Secrets of a configuration stay in it: not in what a command says of a bad one, nor in the log
//! of a start with a good one, however much is logged.

use std::process::Command;

use rustix::process::Signal;

use crate::binary::{Binary, File, LISTENERS, RINGWAY, run, serve};

const MARKER: &str = "Zq7Zq7Zq7";
const NUMBER: &str = "7354173541";

/// Every output of both commands that read a configuration.
fn outputs(text: &str, variable: Option<(&str, &str)>) -> String {
    let file = File::new(text);
    let mut check = Command::new(RINGWAY);
    check.args(["check", "--config"]).arg(file.path());
    let mut all = String::new();
    for mut command in [check, serve(&file)] {
        let (code, out, errors) = run(command.envs(variable));
        assert_eq!(code, Some(1), "{text}: {out}{errors}");
        all += &format!("{out}{errors}");
    }
    all
}

#[test]
fn what_is_said_of_a_bad_configuration_has_no_secret_in_it() {
    let quoted = format!("\"{MARKER}");
    let url = format!("\"nats://user:{MARKER}@ho st:4222\"");
    let list = format!("[\"nats://user:{MARKER}@host:none\"]");
    let key = format!("\"-----BEGIN PRIVATE KEY-----\\n{MARKER}\\n-----END PRIVATE KEY-----\"");
    for (name, value) in [
        ("mesh", &format!("{{ user = \"a\", password = {NUMBER} }}")),
        ("mesh.password", &quoted),
        ("mesh.pasword", &format!("\"{MARKER}\"")),
        ("mesh.token", &list),
        ("mesh.nats", &url),
        ("mesh.nats", &list),
        ("mesh.tls.ca", &key),
        ("xxim.crypto.private_key", &key),
        ("xxim.push", &format!("{{ bind = \"127.0.0.1:0\", secret = \"{MARKER}\" }}")),
        ("login", &format!("{{ verifier = \"static\", tokens = [\"{MARKER}\"] }}")),
        ("login.jwt", &format!("{{ secret = {NUMBER} }}\nlogin.verifier = \"jwt\"")),
        ("connmix.user", &format!("[{{ username = \"a\", password = {NUMBER} }}]")),
        ("netsvr.customer.on_open_callback_api", &url),
        ("xxim.hooks.url", &format!("\"http://user:{MARKER}@host/\"")),
    ] {
        let said = outputs(&format!("{name} = {value}\n{LISTENERS}"), None);
        assert!(!said.contains(MARKER) && !said.contains(NUMBER), "{name} = {value}: {said}");
        assert!(said.contains("ringway.toml:"), "{name} = {value}: {said}");
    }
    for (name, value) in [
        ("RINGWAY_MESH__NATS", format!("nats://user:{MARKER}@host:none")),
        ("RINGWAY_MESH__PASWORD", MARKER.to_owned()),
        ("RINGWAY_XXIM__PUSH__SECRET", MARKER.to_owned()),
        ("RINGWAY_CONNMIX__USER__0__PASSWORD__0", MARKER.to_owned()),
    ] {
        let text = format!("xxim.push.bind = \"127.0.0.1:0\"\n{LISTENERS}");
        let said = outputs(&text, Some((name, &value)));
        assert!(!said.contains(MARKER), "{name}={value}: {said}");
        assert!(said.contains(&format!("environment variable {name}: ")), "{said}");
    }
}

#[test]
fn the_log_of_a_start_has_no_secret_in_it_however_much_is_logged() {
    let long = MARKER.repeat(5);
    let settings = format!(
        "[login]\nverifier = \"static\"\ntokens = [\"ann:{MARKER}\"]\n\
         [login.jwt]\nsecret = \"{long}\"\n\
         [mesh]\nnats = [\"nats://user:{MARKER}@127.0.0.1:9\"]\n\
         [xxim.push]\nbind = \"127.0.0.1:0\"\nsecret = \"{long}\"\n\
         [[xxim.upstream]]\nname = \"a\"\nurl = \"http://127.0.0.1:9\"\n\
         [[connmix.user]]\nusername = \"a\"\npassword = \"{MARKER}\"\n\
         [[connmix.server]]\nname = \"a\"\n\
         [[connmix.server.rule]]\non = \"open\"\nwhen = {{ \"query.token\" = \"{MARKER}\" }}\n\
         do = [ {{ http = {{ url = \"https://a:{MARKER}@127.0.0.1:9/\", \
         body = \"{MARKER}\" }} }} ]\n\
         [netsvr.customer]\non_open_callback_api = \"http://a:{MARKER}@127.0.0.1:9/?{MARKER}\"\n\
         on_close_callback_api = \"http://a:{MARKER}@127.0.0.1:9/?{MARKER}\"\n"
    );
    let listeners = LISTENERS.replace(
        "json = true",
        "json = true\nfilter = \"trace,async_nats=trace,hyper_util=trace\"",
    );
    let mut server = Binary::start_as(&format!("{listeners}{settings}"));
    // Its open is decided by the callback, which can not be asked.
    let mut client = server.client();
    assert_eq!(client.frame().close().0, 1011);
    server.await_log("no NATS server answers");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    let log = server.log();
    assert!(log.iter().any(|line| line["level"] == "TRACE"), "it is as talkative as can be");
    for line in &log {
        assert!(!line.to_string().contains(MARKER), "{line}");
    }
}
