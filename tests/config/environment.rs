//! Where values come from: environment variables, what they mean, and that complaints name them.

use std::path::Path;

use ringway::config;
use ringway::config::model::{ClientProtocol, Route, Service};

use crate::{LISTENERS, load_env};

#[test]
fn the_environment_wins_over_the_file_and_is_named_in_errors() {
    let text = format!("[netsvr.customer]\nmax_online = 5\n{LISTENERS}");
    let env = [
        ("RINGWAY_NETSVR__CUSTOMER__MAX_ONLINE", "1"),
        ("RINGWAY_LISTENER__0__ROUTES__1__PATH", "/e"),
        ("RINGWAY_LISTENER__0__ROUTES__1__PROTOCOL", "echo"),
        ("RINGWAY_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = load_env(&text, &env).expect("these keys exist").config;
    assert_eq!(config.netsvr.customer.max_online, 1);
    let Service::Http(routes) = &config.listeners[0].service else {
        panic!("the first listener has routes");
    };
    assert_eq!(routes[1], Route { path: "/e".to_owned(), protocol: ClientProtocol::Echo });
    for (name, value, says) in [
        ("RINGWAY_NETSVR__CUSTOMER__MAX_ONLINE", "many", "a text where a whole number"),
        ("RINGWAY_NETSVR__CUSTOMER__MAX_ONLIN", "1", "netsvr.customer.max_online`"),
        ("RINGWAY_LISTENER__BIND", "127.0.0.1:1", "LISTENER__0__BIND"),
        ("RINGWAY_LISTENER__4__BIND", "127.0.0.1:1", "without gaps"),
        ("RINGWAY_LISTENER__99999999999999999999__BIND", "127.0.0.1:1", "listener"),
    ] {
        let error = load_env(&text, &[(name, value)]).expect_err(name);
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// Whatever is wrong with a value, the variable that it stands in is named.
#[test]
fn a_complaint_about_a_value_of_a_variable_names_the_variable() {
    let mut complaints = 0;
    for key in config::all::keys() {
        // One element of each list of tables is the next behind those that there are.
        let mut name = "RINGWAY".to_owned();
        let mut path = String::new();
        for part in key.split('.') {
            path = if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
            let sign = if name == "RINGWAY" { "_" } else { "__" };
            name = format!("{name}{sign}{}", part.to_uppercase());
            let index = match &*path {
                "listener" => "3",
                "listener.routes"
                | "xxim.upstream"
                | "xxim.route"
                | "connmix.user"
                | "connmix.server"
                | "connmix.server.rule" => "0",
                _ => continue,
            };
            name = format!("{name}__{index}");
        }
        for value in ["-1", "\u{1}", "[[", "99999999999999999999"] {
            let Err(error) = load_env(LISTENERS, &[(&name, value)]) else { continue };
            let text = error.to_string();
            assert!(text.starts_with(&format!("environment variable {name}: ")), "{text}");
            complaints += 1;
        }
    }
    assert!(complaints > config::all::keys().count(), "{complaints}");
}

#[test]
fn a_warning_about_a_value_of_a_variable_names_the_variable() {
    let env = [
        ("RINGWAY_ADMIN__BIND", "0.0.0.0:9464"),
        ("RINGWAY_LISTENER__1__BIND", "0.0.0.0:6061"),
        ("RINGWAY_LISTENER__1__TRUSTED", "true"),
        ("RINGWAY_HOME", "/opt/ringway"),
        ("RINGWAY_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("RINGWAY_CONFIG", "ringway.toml"),
    ];
    let warnings = load_env(LISTENERS, &env).expect("these may be said").warnings;
    let said = |words: &str| warnings.iter().filter(|text| text.contains(words)).count();
    assert_eq!(said("admin.bind (environment variable RINGWAY_ADMIN__BIND) = "), 1);
    assert_eq!(said("(environment variable RINGWAY_LISTENER__1__BIND) = "), 1);
    assert_eq!(said("no keys of the configuration are ignored: RINGWAY_HOME."), 1);
    assert_eq!(said("SERVICE_HOST") + said("RINGWAY_CONFIG"), 0, "{warnings:?}");
}

#[test]
fn a_file_that_can_not_be_read_is_named() {
    let error =
        config::all::load_with(Path::new("/no/such/ringway.toml"), []).expect_err("no file");
    assert!(error.to_string().starts_with("/no/such/ringway.toml: the configuration can not be"));
}
