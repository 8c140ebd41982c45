//! `netsvr.toml` (netsvr specification section 8), of both generations.
//!
//! A key that is missing there has the default of netsvr, which is written out where Ringway's is
//! another one. A value outside of Ringway's bounds becomes the nearest one inside, and a comment
//! says so. Afterwards the result is checked as `ringway check` does; what would be refused is an
//! error about the key that it comes from.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use toml::Value;
use toml::de::DeValue;

use super::ImportError;
use super::original::{Entry, Original, nanoseconds};
use crate::config;
use crate::limits::{self, Limit, Unit};
use crate::pem::{self, Wanted};

/// Keys that have a counterpart with the same meaning: that of netsvr, its default, that of
/// Ringway. An empty default is Ringway's own.
const SAME: &[(&str, &str, &str)] = &[
    ("ShutdownWaitTime", "\"0s\"", "runtime.shutdown_timeout"),
    ("Metrics.Item", "[]", "netsvr.metrics_items"),
    ("Customer.AllowOrigin", "[]", "netsvr.customer.allow_origin"),
    ("Customer.HeartbeatInterval", "\"120s\"", "netsvr.customer.heartbeat_interval"),
    ("Customer.HeartbeatMessage", "", "netsvr.customer.heartbeat_message"),
    ("Customer.MaxOnlineNum", "100000", "netsvr.customer.max_online"),
    ("Customer.ReceivePackLimit", "2097152", "netsvr.customer.receive_pack_limit"),
    ("Customer.SendMessageType", "1", "netsvr.customer.send_message_type"),
    ("Customer.CompressionLevel", "0", "netsvr.customer.compression_level"),
    ("Customer.OnOpenCallbackApi", "\"\"", "netsvr.customer.on_open_callback_api"),
    ("Customer.OnCloseCallbackApi", "\"\"", "netsvr.customer.on_close_callback_api"),
    ("Customer.CallbackApiDeadline", "\"0s\"", "netsvr.customer.callback_api_deadline"),
    ("Customer.LimitWindowSize", "\"1s\"", "netsvr.customer.limit_window_size"),
    ("Customer.LimitWindowMaxRequests", "100", "netsvr.customer.limit_window_max_requests"),
    (
        "Customer.LimitZeroWindowMaxRequests",
        "1000",
        "netsvr.customer.limit_zero_window_max_requests",
    ),
    ("Worker.ReadDeadline", "\"120s\"", "netsvr.worker.read_deadline"),
    ("Worker.SendDeadline", "\"10s\"", "netsvr.worker.send_deadline"),
    ("Worker.ReceivePackLimit", "2097152", "netsvr.worker.receive_pack_limit"),
    ("Worker.SendChanCap", "1024", "netsvr.worker.queue_frames_max"),
    ("Worker.HeartbeatMessage", "", "netsvr.worker.heartbeat_message"),
    ("Task.ReadDeadline", "\"120s\"", "netsvr.task.read_deadline"),
    ("Task.SendDeadline", "\"10s\"", "netsvr.task.send_deadline"),
    ("Task.ReceivePackLimit", "2097152", "netsvr.task.receive_pack_limit"),
    ("Task.HeartbeatMessage", "", "netsvr.task.heartbeat_message"),
    ("Limit.OnOpen", "0", "netsvr.limit.on_open"),
    ("Limit.OnMessage", "0", "netsvr.limit.on_message"),
];

/// Keys without a counterpart, and why.
const WITHOUT: &[(&str, &str)] = &[
    ("LogFile", "the log goes to standard error; systemd or the shell redirects it"),
    ("PprofListenAddress", "/metrics on admin.bind and `perf` take its place"),
    ("Autobahn", "a route with protocol = \"echo\" takes its place"),
    ("Customer.Multicore", "one shard runs on each CPU; runtime.cpus chooses fewer"),
    (
        "Customer.SendDeadline",
        "runtime.outbox_bytes_max and runtime.slow_client bound slow clients",
    ),
    ("Customer.IOMod", "there is one way, io_uring"),
    ("Customer.MaxBlockingOnline", "no connection blocks a thread"),
    ("Customer.CallbackScriptFile", "on_open_callback_api asks an HTTP server instead of a script"),
    ("Worker.ReadBufferSize", "connections share receive buffers, see runtime.receive_buffers"),
    ("Worker.SendChanDeadline", "full workers hold their clients back; on_full = \"drop\" drops"),
    ("Task.ReadBufferSize", "connections share receive buffers, see runtime.receive_buffers"),
];

/// The text of a configuration of Ringway. `file` is what errors and comments call the original.
///
/// # Errors
/// What netsvr would not start with either, or what Ringway can not do.
pub fn netsvr(text: &str, file: &str) -> Result<String, ImportError> {
    let mut old = Original::parse(text, file)?;
    let mut new = Output::new(file);
    let two_ports = old.has_table("task");
    new.log(&mut old)?;
    new.table("runtime");
    new.same(&mut old, "runtime.")?;
    new.customers(&mut old, two_ports)?;
    new.business(&mut old, "Worker", "netsvr-worker")?;
    if two_ports {
        new.business(&mut old, "Task", "netsvr-task")?;
    }
    new.admin();
    new.table("netsvr");
    new.comment("6 with a table [Task], otherwise 5.");
    new.line(format!("generation = {}", if two_ports { 6 } else { 5 }));
    new.same(&mut old, "netsvr.metrics_items")?;
    new.table("netsvr.customer");
    new.customer(&mut old, two_ports)?;
    for table in ["worker", "task", "limit"] {
        if table != "task" || two_ports {
            new.table(&format!("netsvr.{table}"));
            new.same(&mut old, &format!("netsvr.{table}."))?;
        }
    }
    new.without(&mut old);
    let result = new.text;
    match config::all::from_text(&result, file) {
        Ok(_) => Ok(result),
        Err(error) => Err(refused(text, two_ports, &old, &error)),
    }
}

/// What is being written.
struct Output {
    text: String,
    ports: Vec<u16>,
}

impl Output {
    fn new(file: &str) -> Output {
        let mut output = Output { text: String::new(), ports: Vec::new() };
        output.comment(&format!("Made from {file:?} by `ringway import netsvr`."));
        output
    }

    fn line(&mut self, line: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{line}");
    }

    fn comment(&mut self, text: &str) {
        let plain = |c: char| if c.is_control() { '?' } else { c };
        self.line(format!("# {}", text.chars().map(plain).collect::<String>()));
    }

    fn table(&mut self, name: &str) {
        self.line(format!("\n[{name}]"));
    }

    /// `key` is written without its table.
    fn set(&mut self, key: &str, value: &Value) {
        let name = key.rsplit('.').next().unwrap_or(key);
        self.line(format!("{name} = {value}"));
    }

    fn log(&mut self, old: &mut Original) -> Result<(), ImportError> {
        let level = match old.take("LogLevel") {
            None => "error".to_owned(),
            Some(entry) => text(old, &entry)?.to_owned(),
        };
        self.table("log");
        let known = ["debug", "info", "warn", "error"].contains(&level.as_str());
        if !known {
            self.comment("To netsvr every other LogLevel is \"error\".");
        }
        self.set("filter", &Value::String(if known { level } else { "error".to_owned() }));
        Ok(())
    }

    /// The keys whose counterparts begin like this and that were not taken before.
    fn same(&mut self, old: &mut Original, ours: &str) -> Result<(), ImportError> {
        for (key, default, target) in SAME.iter().filter(|row| row.2.starts_with(ours)) {
            let entry = match old.take(key) {
                Some(entry) if is_ignored(key, &entry.value, default) => {
                    let (name, value) = (&entry.name, &entry.value);
                    self.comment(&format!("{name} = {value}: netsvr takes {default} then."));
                    Entry { value: parsed(default), ..entry }
                }
                Some(entry) => entry,
                None if default.is_empty() => {
                    return Err(old.error(Some(key), "it is missing; netsvr needs it as well"));
                }
                None => Entry { name: (*key).to_owned(), line: 0, value: parsed(default) },
            };
            let value = self.converted(old, &entry, target)?;
            self.set(target, &value);
        }
        Ok(())
    }

    /// The value in the units and bounds of a key of Ringway.
    fn converted(
        &mut self,
        old: &Original,
        entry: &Entry,
        target: &str,
    ) -> Result<Value, ImportError> {
        if target == "netsvr.customer.send_message_type" {
            return match number(old, entry)? {
                1 => Ok(Value::from("text")),
                2 => Ok(Value::from("binary")),
                _ => Err(old.wrong(entry, "netsvr knows 1 (text) and 2 (binary)")),
            };
        }
        match limits::all::find(target) {
            Some(limit) if target.ends_with("metrics_items") => self.items(old, entry, limit),
            Some(limit) if limit.unit == Unit::Milliseconds => self.duration(old, entry, limit),
            Some(_) if target.ends_with("heartbeat_message") => text(old, entry).map(Value::from),
            Some(limit) => {
                let wanted = number(old, entry)?;
                let number = wanted.clamp(limit.min, limit.max);
                self.moved(entry, limit, number != wanted);
                Ok(Value::from(number))
            }
            None if target.ends_with("allow_origin") => {
                let list = entry.value.as_array().filter(|list| list.iter().all(Value::is_str));
                let list = list.ok_or_else(|| old.wrong(entry, "a list of texts belongs here"))?;
                // It occurs in every origin, so it lets everybody in.
                if list.iter().any(|origin| origin.as_str() == Some("")) {
                    self.comment(&format!("{} has an empty text: no check.", entry.name));
                    return Ok(Value::Array(Vec::new()));
                }
                Ok(entry.value.clone())
            }
            None => text(old, entry).map(Value::from),
        }
    }

    fn duration(
        &mut self,
        old: &Original,
        entry: &Entry,
        limit: &Limit,
    ) -> Result<Value, ImportError> {
        let wrong = || old.wrong(entry, "this is no duration, a text like \"5s\" or \"1m30s\"");
        let wanted = nanoseconds(text(old, entry)?).ok_or_else(wrong)?;
        const MS: i128 = 1_000_000;
        let for_ever = ["ShutdownWaitTime", "CallbackApiDeadline"];
        let endless = for_ever.iter().any(|name| entry.name.ends_with(name)) && wanted <= 0;
        let wanted = if endless { i128::from(limit.max) * MS } else { wanted };
        let ms = (wanted / MS).clamp(limit.min.into(), limit.max.into());
        let number = i64::try_from(ms).unwrap_or(limit.max);
        match endless {
            true => self.comment(&format!("{} is without end in netsvr.", entry.name)),
            false => self.moved(entry, limit, ms * MS != wanted),
        }
        Ok(Value::String(limits::duration(number)))
    }

    fn items(
        &mut self,
        old: &Original,
        entry: &Entry,
        limit: &Limit,
    ) -> Result<Value, ImportError> {
        let wrong = || old.wrong(entry, "a list of whole numbers belongs here");
        let list = entry.value.as_array().ok_or_else(wrong)?;
        let numbers: Option<Vec<i64>> = list.iter().map(Value::as_integer).collect();
        let numbers = numbers.ok_or_else(wrong)?;
        let known = |item: &i64| (limit.min..=limit.max).contains(item);
        self.moved(entry, limit, !numbers.iter().all(known));
        Ok(Value::Array(numbers.into_iter().filter(known).map(Value::from).collect()))
    }

    /// Says that a value is not the one that was written.
    fn moved(&mut self, entry: &Entry, limit: &Limit, moved: bool) {
        if moved {
            let (min, max) = (limit.unit.show(limit.min), limit.unit.show(limit.max));
            let shown = &entry.value;
            self.comment(&format!("{} = {shown} is outside of {min} to {max}.", entry.name));
        }
    }

    fn customers(&mut self, old: &mut Original, two_ports: bool) -> Result<(), ImportError> {
        let bind = self.address(old, "Customer")?;
        self.line("\n[[listener]]");
        self.set("bind", &Value::from(bind.0));
        let path = match old.take("Customer.HandlePattern") {
            Some(entry) => text(old, &entry)?.to_owned(),
            None => "/".to_owned(),
        };
        let path = Value::String(if path.is_empty() { "/".to_owned() } else { path });
        self.line(format!("routes = [ {{ path = {path}, protocol = \"netsvr\" }} ]"));
        // Generation 6 has no TLS.
        if two_ports {
            return Ok(());
        }
        let mut file = |key: &str| match old.take(key) {
            Some(entry) => text(old, &entry).map(str::to_owned),
            None => Ok(String::new()),
        };
        let (cert, key) = (file("Customer.TLSCert")?, file("Customer.TLSKey")?);
        match (cert.is_empty(), key.is_empty()) {
            (true, true) => {}
            (false, false) => self.tls(&cert, &key),
            _ => self.comment("TLSCert and TLSKey belong together: without TLS."),
        }
        Ok(())
    }

    /// Files that can not be used are left to the reader, or the result would be refused.
    fn tls(&mut self, cert: &str, key: &str) {
        let tables = [("cert", cert), ("key", key)]
            .map(|(name, path)| format!("{name} = {}", Value::from(path)));
        let line = format!("tls = {{ {} }}", tables.join(", "));
        let problem = pem::read(cert.as_ref(), Wanted::Certificates).err();
        match problem.or(pem::read(key.as_ref(), Wanted::PrivateKey).err()) {
            None => self.line(line),
            Some(problem) => {
                self.comment(&format!("TLSCert and TLSKey can not be used here: {problem}."));
                self.comment(&line);
            }
        }
    }

    fn business(
        &mut self,
        old: &mut Original,
        table: &str,
        protocol: &str,
    ) -> Result<(), ImportError> {
        let (mut bind, ip) = self.address(old, table)?;
        self.line("\n[[listener]]");
        if ip.is_unspecified() {
            self.comment(
                "netsvr takes the first address of the machine that is not loopback; this",
            );
            self.comment("is that of the machine where this file was made.");
            let Some(own) = config::first_ipv4() else {
                let problem = "this machine has no IPv4 address but loopback; write the address \
                               at which business processes reach it";
                return Err(old.error(Some(&format!("{table}.ListenAddress")), problem));
            };
            bind = SocketAddr::new(own.into(), self.ports.last().copied().unwrap_or(0)).to_string();
        }
        self.set("bind", &Value::from(bind));
        self.set("protocol", &Value::from(protocol));
        if !ip.is_loopback() {
            self.comment("Whoever reaches this port commands the gateway, as with netsvr. Better:");
            self.comment("tls with client_ca in the place of this line.");
            self.line("trusted = true");
        }
        Ok(())
    }

    /// The address of a listener and its IP; of a name's the one that others reach.
    fn address(
        &mut self,
        old: &mut Original,
        table: &str,
    ) -> Result<(String, IpAddr), ImportError> {
        let key = format!("{table}.ListenAddress");
        let missing = |old: &Original| old.error(Some(&key), "it is missing; netsvr needs it");
        let entry = old.take(&key).ok_or_else(|| missing(old))?;
        let address = text(old, &entry)?;
        // To Go that is every address of the machine.
        let address = match address.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None => address.to_owned(),
        };
        let found: Vec<SocketAddr> = address.to_socket_addrs().into_iter().flatten().collect();
        let Some(first) = found.first() else {
            return Err(old.wrong(&entry, "this is not address:port, or its name is not known"));
        };
        self.ports.push(first.port());
        let outside = found.iter().find(|address| !address.ip().is_loopback());
        Ok((address, outside.unwrap_or(first).ip()))
    }

    /// Ringway's own port must be another one.
    fn admin(&mut self) {
        const PORT: u16 = 9464;
        let free = (PORT..).find(|port| !self.ports.contains(port)).unwrap_or(PORT);
        if free != PORT {
            self.table("admin");
            self.set("bind", &Value::from(format!("127.0.0.1:{free}")));
        }
    }

    fn customer(&mut self, old: &mut Original, two_ports: bool) -> Result<(), ImportError> {
        // Generation 5 has another name for it.
        if !two_ports {
            if old.take("Customer.HeartbeatInterval").is_some() {
                self.comment("Customer.HeartbeatInterval: generation 5 reads ReadDeadline.");
            }
            if let Some(entry) = old.take("Customer.ReadDeadline") {
                old.put("Customer.HeartbeatInterval", entry);
            }
        }
        let online = old.take("Customer.MaxOnlineNum");
        match &online {
            Some(entry) if entry.value.as_integer() == Some(0) && two_ports => {
                self.comment("MaxOnlineNum = 0 refuses every client in netsvr.");
            }
            Some(_) => {}
            None if two_ports => self.comment("MaxOnlineNum is missing: netsvr refuses everybody."),
            None => {}
        }
        if let Some(entry) = online.filter(|entry| entry.value.as_integer() != Some(0)) {
            old.put("Customer.MaxOnlineNum", entry);
        }
        self.line("allow_origin_mode = \"contains\"");
        self.same(old, "netsvr.customer.")
    }

    /// The keys that nobody has taken.
    fn without(&mut self, old: &mut Original) {
        let rest: Vec<String> = old.rest().map(|entry| entry.name.clone()).collect();
        if !rest.is_empty() {
            self.line("");
            self.comment("Without a counterpart:");
        }
        for name in rest {
            let row = WITHOUT.iter().find(|(key, _)| key.eq_ignore_ascii_case(&name));
            let why =
                row.map_or("this is no key of netsvr v5 or v8 that is known here", |row| row.1);
            self.comment(&format!("{name}: {why}."));
        }
    }
}

fn text<'a>(old: &Original, entry: &'a Entry) -> Result<&'a str, ImportError> {
    entry.value.as_str().ok_or_else(|| old.wrong(entry, "a text belongs here"))
}

fn number(old: &Original, entry: &Entry) -> Result<i64, ImportError> {
    entry.value.as_integer().ok_or_else(|| old.wrong(entry, "a whole number belongs here"))
}

/// Whether netsvr takes its default instead of a value: where that is above 0, for what is not.
fn is_ignored(key: &str, value: &Value, default: &str) -> bool {
    // These it takes at their word.
    let taken = ["Customer.MaxOnlineNum", "Customer.SendMessageType"].contains(&key);
    if taken || default.is_empty() {
        return false;
    }
    match (parsed(default), value) {
        (Value::Integer(default), Value::Integer(value)) => default > 0 && *value <= 0,
        (Value::String(default), Value::String(value)) => {
            let is_above_0 = |text| nanoseconds(text).map(|duration| duration > 0);
            is_above_0(&default) == Some(true) && is_above_0(value) == Some(false)
        }
        _ => false,
    }
}

/// A default of [`SAME`].
fn parsed(text: &str) -> Value {
    let value = DeValue::parse(text).expect("the defaults of the table are TOML");
    config::toml_value(value.get_ref())
}

/// What Ringway refuses, said of the key that it comes from.
fn refused(
    text: &str,
    two_ports: bool,
    old: &Original,
    error: &config::ConfigError,
) -> ImportError {
    let key = match &*error.key {
        "listener.0.bind" => Some("Customer.ListenAddress"),
        "listener.0.routes.0.path" => Some("Customer.HandlePattern"),
        "listener.1.bind" => Some("Worker.ListenAddress"),
        "listener.2.bind" => Some("Task.ListenAddress"),
        "netsvr.customer.heartbeat_interval" if !two_ports => Some("Customer.ReadDeadline"),
        key => SAME.iter().find(|(_, _, ours)| *ours == key).map(|(key, _, _)| *key),
    };
    let mut problem = error.problem.to_string();
    if !error.allowed.is_empty() {
        let _ = write!(problem, ". Allowed: {}", error.allowed);
    }
    let again = Original::parse(text, &error.file).ok();
    let entry = key.and_then(|key| again?.take(key));
    match entry {
        Some(entry) => old.wrong(&entry, problem),
        None => old.error(key, problem),
    }
}
