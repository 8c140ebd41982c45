//! What is secret in a configuration stays out of errors, which end in logs and tickets.

use ringway::config;

use crate::{LISTENERS, load_env, with_key};

/// Nothing else has it, whole or in part.
const MARKER: &str = "Zq7Zq7Zq7";
const NUMBER: &str = "7354173541";

/// Values as they stand in a file, all of them wrong for most keys that are secret.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "\"MARKER\"",
        "'MARKER'",
        "[\"MARKER\"]",
        "[\"user:MARKER\", 7354173541]",
        "[[\"MARKER\"]]",
        "[ { x = \"MARKER\" } ]",
        "{ x = \"MARKER\" }",
        "7354173541",
        "73541.73541",
        "735417354173541735417354173541",
        "\"-----BEGIN MARKER-----\\nMARKER\"",
        // Not TOML.
        "MARKER",
        "\"MARKER",
        "'MARKER",
        "\"\"\"MARKER",
        "[\"MARKER\"",
        "[\"MARKER\" \"MARKER\"]",
        "\"MARKER\" MARKER",
        "\"MARKER\\q\"",
        "\"MARKER\\uD800\"",
        "\"MARKER\u{1}\"",
        "\"MARKER\rMARKER\"",
        "{ x = MARKER }",
        "0xMARKER",
        "7354173541MARKER",
    ]
    .map(|value| value.replace("MARKER", MARKER))
    .into();
    for url in [
        "http://user:MARKER@ho st",
        "http://user:MARKER@host:MARKER",
        "http://user:MARKER@",
        "http://user:MARKER",
        "http://MARKER@host/?x#y z",
        "http://host/?token=MARKER ",
        "nats://user:MARKER@host:x",
        "nats://user:MARKER@host,nats://host",
        "nats:/user:MARKER@host",
        "user:MARKER@host:4222",
        "MARKER://host",
    ] {
        let url = url.replace("MARKER", MARKER);
        values.push(format!("\"{url}\""));
        values.push(format!("[\"nats://127.0.0.1:9\", \"{url}\"]"));
    }
    for action in [
        "{ http = { url = \"https://user:MARKER@host/\", method = \"LOOK\" } }",
        "{ http = { url = \"MARKER${json.x}\" } }",
        "{ http = { url = \"https://host/\", body = \"${json.x MARKER\" } }",
        "{ http = { url = \"https://host/\", body = \"MARKER ${json.x[*]} ${json.y[*]}\" } }",
        "{ send = { binary = \"MARKER\", text = \"MARKER\" } }",
        "\"MARKER\"",
    ] {
        values.push(format!("[ {} ]", action.replace("MARKER", MARKER)));
    }
    values
}

fn check(text: &str, shown: &str) {
    let found = [MARKER, NUMBER].iter().find(|marker| shown.contains(**marker));
    assert_eq!(found, None, "{text}\n{shown}");
}

/// The error about a file, if there is one; how often is counted.
fn check_file(text: &str, errors: &mut usize) {
    match load_env(text, &[]) {
        Err(error) => {
            check(text, &format!("{error} {error:?}"));
            *errors += 1;
        }
        Ok(loaded) => loaded.warnings.iter().for_each(|warning| check(text, warning)),
    }
}

/// Listeners and tables with which the values of secret keys are looked at.
fn around(key: &str) -> &'static str {
    match key {
        "login.tokens" => "verifier = \"static\"\n",
        "login.url" => "verifier = \"http\"\n",
        "login.jwt.secret" => "[login]\nverifier = \"jwt\"\n",
        "xxim.push.secret" => "bind = \"127.0.0.1:6700\"\n",
        "connmix.user.password" => "username = \"a\"\n",
        key if key.starts_with("connmix.server.rule.") => "on = \"message\"\n",
        _ => "",
    }
}

fn file(key: &str, value: &str) -> String {
    let text = match key.strip_prefix("connmix.server.rule.") {
        Some(name) => {
            format!("[[connmix.server]]\nname = \"a\"\n[[connmix.server.rule]]\n{name} = {value}\n")
        }
        None if key.starts_with("connmix.user.") => {
            format!("[[connmix.user]]\npassword = {value}\n")
        }
        None if key.starts_with("xxim.upstream.") => {
            format!("[[xxim.upstream]]\nname = \"a\"\nurl = {value}\n")
        }
        None => with_key(key, value),
    };
    // Lists of tables have had theirs already.
    format!("{text}{}\n{LISTENERS}", around(key))
}

#[test]
fn no_error_about_a_file_repeats_a_secret() {
    let mut errors = 0;
    for key in config::all::secret_keys() {
        for value in values() {
            check_file(&file(key, &value), &mut errors);
        }
        // A slip of the pen makes another key of it.
        for value in values().iter().step_by(5) {
            check_file(&file(&format!("{key}s"), value), &mut errors);
        }
    }
    assert!(errors > config::all::secret_keys().count() * values().len(), "{errors}");
}

/// Wherever a good file is cut, or a character of it is another one or gone.
#[test]
fn no_damage_of_a_file_makes_an_error_repeat_a_secret() {
    let whole = format!(
        "mesh.token = \"{MARKER}\"\nmesh.nats = [\"nats://user:{MARKER}@host\", 'nats://b']\n\
         [[connmix.user]]\nusername = \"a\"\npassword = \"\"\"{MARKER}\"\"\"\n"
    );
    let mut errors = 0;
    for at in 0..whole.len() {
        check_file(&whole[..at], &mut errors);
        check_file(&format!("{}{}", &whole[..at], &whole[at + 1..]), &mut errors);
        // Quotes and brackets are what it is about; others have less to say.
        for character in ["\"", "'", "[", "\\", "\n", "=", "\u{7f}"] {
            check_file(&format!("{}{character}{}", &whole[..at], &whole[at..]), &mut errors);
        }
    }
    assert!(errors > whole.len() * 5, "{errors}");
}

#[test]
fn no_error_about_a_variable_repeats_a_secret() {
    let mut errors = 0;
    for key in config::all::secret_keys() {
        let path = match key {
            key if key.starts_with("connmix.server.rule.") => {
                key.replace("connmix.server.rule.", "connmix.server.0.rule.0.")
            }
            key if key.starts_with("connmix.user.") => key.replace("user.", "user.0."),
            key if key.starts_with("xxim.upstream.") => key.replace("upstream.", "upstream.0."),
            key => key.to_owned(),
        };
        let name = format!("RINGWAY_{}", path.replace('.', "__").to_uppercase());
        let text = format!("{}{LISTENERS}", head(key));
        let mut check_variable = |name: &str, value: &str| {
            let shown = match load_env(&text, &[(name, value)]) {
                Err(error) => {
                    errors += 1;
                    format!("{error} {error:?}")
                }
                Ok(loaded) => loaded.warnings.join("\n"),
            };
            check(&format!("{name}={value}"), &shown);
        };
        for value in values() {
            // As a shell has it: without the quotes of TOML, or with them.
            check_variable(&name, value.trim_matches(['"', '\'']));
            check_variable(&name, &value);
        }
        check_variable(&format!("{name}S"), MARKER);
        check_variable(&format!("{name}__0"), MARKER);
    }
    assert!(errors > config::all::secret_keys().count() * values().len(), "{errors}");
}

/// The tables of [`around`].
fn head(key: &str) -> String {
    match key.rsplit_once('.') {
        Some((table, _)) if !around(key).is_empty() && !key.starts_with("connmix.") => {
            format!("[{table}]\n{}", around(key))
        }
        _ => String::new(),
    }
}
