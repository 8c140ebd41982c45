//! Who is believed where a client comes from.

use std::path::Path;

use ringway::config::model::{ClientProtocol, Listener, ProxyProtocol, Route, Service, TlsFiles};
use ringway::wire::network::Network;

use crate::{LISTENERS, bad, good, load};

/// Those of the text that has a value of every key.
pub fn listeners(dir: &Path) -> Vec<Listener> {
    let pem = dir.join("both.pem");
    let route = |path: &str, protocol| Route { path: path.to_owned(), protocol };
    let routes = vec![
        route("/a", ClientProtocol::Netsvr),
        route("/b", ClientProtocol::Echo),
        route("/c", ClientProtocol::Connmix { server: 1 }),
    ];
    let tls = TlsFiles { cert: pem.clone(), key: pem.clone(), client_ca: Some(pem) };
    let bind = |text: &str| text.parse().expect("this is an address");
    vec![
        Listener {
            bind: bind("[::1]:7000"),
            proxy: ProxyProtocol::Require,
            socket: Some("web".to_owned()),
            tls: Some(tls),
            service: Service::Http(routes),
        },
        Listener {
            bind: bind("127.0.0.1:0"),
            proxy: ProxyProtocol::Off,
            socket: None,
            tls: None,
            service: Service::NetsvrWorker,
        },
    ]
}

#[test]
fn the_proxies_of_xxim_are_those_of_all_protocols() {
    let trusted = |text: &str| good(text).trust.trusted;
    let network = vec![Network::parse("10.0.0.0/8").expect("a network")];
    let (all, xxim) = ("[trust]\nproxies = [\"10.0.0.0/8\"]\n", "[xxim]\ntrusted_proxies = ");
    assert_eq!(trusted(all), network);
    assert_eq!(trusted(&format!("{xxim}[\"10.0.0.0/8\"]\n")), network);
    assert_eq!(trusted(&format!("{all}{xxim}[\"10.0.0.0/8\"]\n")), network);
    let error = bad(&format!("{all}{xxim}[]\n{LISTENERS}"));
    assert_eq!(&*error.key, "xxim.trusted_proxies");
    assert!(error.to_string().contains("trust.proxies says otherwise"), "{error}");
}

#[test]
fn a_listener_takes_proxy_headers_only_of_somebody() {
    let listener = "[[listener]]\nbind = \"127.0.0.1:1\"\nproxy_protocol = \"require\"\n\
                    routes = [ { path = \"/\", protocol = \"echo\" } ]\n";
    let error = bad(listener);
    assert_eq!(&*error.key, "listener.0.proxy_protocol");
    assert!(error.to_string().contains("trust.proxies is empty"), "{error}");
    load(&format!("{listener}[trust]\nproxies = [\"::1\"]\n")).expect("somebody may say it");
}
