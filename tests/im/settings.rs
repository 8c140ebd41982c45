//! `[im]` in a configuration file: every key arrives, and what can not be is said.

use std::time::Duration;

use ringway::config::all::Config;
use ringway::config::{self, ConfigError};
use ringway::protocols::im::config::{Forward, GzipServer, Im};
use ringway::protocols::im::wire::{
    ByteOrder, Commands, LenMode, LenRule, LoginFields, Modes, Status, Statuses, Versions,
};

fn load(im: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let file = directory.path().join("ringway.toml");
    let listener = "[[listener]]\nbind = \"127.0.0.1:0\"\nprotocol = \"im\"\n";
    std::fs::write(&file, format!("{listener}{im}")).expect("the directory is ours");
    config::all::load_with(&file, []).map(|loaded| loaded.config)
}

/// No value is the default.
const EVERYTHING: &str = r#"
[im]
len_mode = "auto"
len_auto = ["frame", "body"]
byte_order = "little"
versions = [1, 2]
gzip_server = "never"
cms_error_reply = true
kick_notify = true
single_session = true
announce_join = true
forward = "content"
queue = "chat"
idle_timeout = "31s"
login_timeout = "11s"
frame_timeout = "12s"
write_timeout = "13s"
batch_delay = "0s"
batch_max_messages = 1
batch_max_bytes = 64
max_body = 65
max_plain = 66
max_content = 67
max_websocket_message = 128
gzip_min = 0
max_rooms = 1
max_room_members = 2
max_room_id = 3
max_user_id = 4
max_token = 5
cms_rate = 6
cms_burst = 7
room_rate = 8
room_burst = 9
request_rate = 11
request_burst = 12
max_errors = 13
out_high_water = 4096

[im.commands]
reserved = 20
login = 21
logout = 22
ping = 23
pong = 24
join_cr = 25
leave_cr = 26
cms = 27
cr_notify = 27
kick = 29

[im.statuses]
kicked = 99

[im.login_fields]
token = 3
user_id = 536870911
"#;

#[test]
fn every_key_is_in_the_text() {
    let here =
        config::all::keys().filter(|key| key.starts_with("im.") && !key.contains("statuses"));
    for key in here {
        let name = key.rsplit('.').next().unwrap_or(key);
        assert!(EVERYTHING.contains(&format!("{name} = ")), "{key} is not in the text");
    }
}

#[test]
fn every_key_reaches_the_configuration() {
    let seconds = Duration::from_secs;
    let mut statuses = Statuses::default();
    statuses.set(Status::Kicked, 99);
    let expected = Im {
        len_mode: LenRule::Auto(Modes::of(&[LenMode::Frame, LenMode::Body]).expect("they differ")),
        byte_order: ByteOrder::Little,
        versions: Versions::of(&[1, 2]),
        gzip_server: GzipServer::Never,
        cms_error_reply: true,
        kick_notify: true,
        single_session: true,
        announce_join: true,
        forward: Forward::Content,
        queue: "chat".to_owned(),
        commands: Commands {
            reserved: 20,
            login: 21,
            logout: 22,
            ping: 23,
            pong: 24,
            join_cr: 25,
            leave_cr: 26,
            cms: 27,
            cr_notify: 27,
            kick: 29,
        },
        statuses,
        login_fields: LoginFields { token: 3, user_id: 536_870_911 },
        idle_timeout: seconds(31),
        login_timeout: seconds(11),
        frame_timeout: seconds(12),
        write_timeout: seconds(13),
        batch_delay: Duration::ZERO,
        batch_max_messages: 1,
        batch_max_bytes: 64,
        max_body: 65,
        max_plain: 66,
        max_content: 67,
        max_websocket_message: 128,
        gzip_min: 0,
        max_rooms: 1,
        max_room_members: 2,
        max_room_id: 3,
        max_user_id: 4,
        max_token: 5,
        cms_rate: 6,
        cms_burst: 7,
        room_rate: 8,
        room_burst: 9,
        request_rate: 11,
        request_burst: 12,
        max_errors: 13,
        out_high_water: 4096,
    };
    assert_eq!(load(EVERYTHING).expect("it is valid").im, expected);
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let im = load("").expect("it is valid").im;
    assert_eq!((im.len_mode, im.byte_order), (LenRule::Always(LenMode::Body), ByteOrder::Big));
    assert_eq!(im.versions, Versions::CURRENT);
    assert_eq!(im.login_fields, LoginFields { token: 1, user_id: 2 });
    let auto = load("[im]\nlen_mode = \"auto\"\n").expect("it is valid").im.len_mode;
    let modes = Modes::of(&[LenMode::Rest, LenMode::Body]).expect("they differ");
    assert_eq!(auto, LenRule::Auto(modes));
    let timeouts = [im.idle_timeout, im.login_timeout, im.frame_timeout];
    assert_eq!(timeouts, [30, 10, 10].map(Duration::from_secs));
    assert_eq!(im.batch_delay, Duration::from_millis(50));
    assert_eq!((im.batch_max_messages, im.batch_max_bytes), (64, 32_768));
    assert_eq!((im.max_body, im.max_plain, im.max_content), (65_536, 262_144, 16_384));
    assert_eq!((im.gzip_min, im.max_rooms, im.max_room_id), (1024, 20, 128));
    assert_eq!((im.max_user_id, im.max_token, im.out_high_water), (128, 4096, 1 << 20));
    assert_eq!((im.cms_rate, im.cms_burst, im.request_rate, im.request_burst), (20, 40, 10, 20));
    assert_eq!(im.gzip_server, GzipServer::Negotiated);
    let flags = [im.cms_error_reply, im.kick_notify, im.single_session, im.announce_join];
    assert_eq!((flags, im.forward, &*im.queue), ([false; 4], Forward::No, ""));
    assert_eq!((im.commands, im.statuses), (Commands::default(), Statuses::default()));
}

#[test]
fn what_can_not_be_is_said() {
    for (text, words) in [
        ("[im]\nversions = []\n", ["im.versions", "no client could log in"]),
        ("[im]\nversions = [16]\n", ["im.versions", "too large"]),
        ("[im.commands]\nping = 1\n", ["im.commands.ping", "the number of login"]),
        ("[im.statuses]\nbusy = 0\n", ["im.statuses.busy", "too small"]),
        ("[im]\nlen_mode = \"all\"\n", ["im.len_mode", "\"rest\""]),
        ("[im]\nlen_auto = [\"body\"]\n", ["im.len_auto", "two or three"]),
        ("[im]\nlen_auto = [\"body\", \"body\"]\n", ["im.len_auto", "two or three"]),
        ("[im]\nlen_auto = [\"body\", \"auto\"]\n", ["im.len_auto", "two or three"]),
        ("[im]\nbyte_order = \"native\"\n", ["im.byte_order", "\"little\""]),
        ("[im.login_fields]\ntoken = 0\n", ["im.login_fields.token", "too small"]),
        ("[im.login_fields]\ntoken = 536870912\n", ["im.login_fields.token", "too large"]),
        ("[im.login_fields]\ntoken = 2\n", ["im.login_fields.user_id", "number of token"]),
    ] {
        let error = load(text).expect_err(text).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let long = format!("[im]\nqueue = \"{}\"\n", "q".repeat(256));
    let error = load(&long).expect_err("too long").to_string();
    assert!(error.contains("im.queue") && error.contains("255 bytes"), "{error}");
}
