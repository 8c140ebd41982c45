//! Results as a table, as JSON, as a chart.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::options::{Options, Scenario};
use crate::run::Entry;

/// What ratios are made of, if a scenario has it.
const COMPARED: [&str; 3] = ["cpu_us", "cpu_percent", "rss_slope_bytes"];

/// The figure of a scenario by which contenders are compared.
pub fn compared(scenario: Scenario) -> &'static str {
    if scenario == Scenario::Idle { "cpu_percent" } else { "cpu_us" }
}

/// A table: one line per figure, one column per contender, then the ratios of the first to the
/// others.
pub fn table(options: &Options, entries: &[Entry]) -> String {
    let mut text = format!("{} ({})\n", options.scenario.name(), sizes(options));
    let Some((subject, others)) = entries.split_first() else { return text };
    let _ = write!(text, "{:<22}", "");
    for entry in entries {
        let _ = write!(text, "{:>14}", entry.name);
    }
    others.iter().for_each(|other| {
        let _ = write!(text, "{:>14}", format!("x {}", other.name));
    });
    text.push('\n');
    for name in subject.names() {
        let _ = write!(text, "{name:<22}");
        for entry in entries {
            let value = entry.median(name).map_or("-".to_owned(), number);
            let _ = write!(text, "{value:>14}");
        }
        for other in others.iter().filter(|_| COMPARED.contains(&name)) {
            let ratio = subject.ratio(other, name).map_or("-".to_owned(), |r| format!("{r:.2}"));
            let _ = write!(text, "{ratio:>14}");
        }
        text.push('\n');
    }
    text
}

fn sizes(options: &Options) -> String {
    let size = &options.size;
    let mut parts = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        parts.extend(value.map(|value| format!("{name} {value}")));
    };
    let text = |number: Option<usize>| number.map(|number| number.to_string());
    add("clients", text(size.clients));
    add("payload", text(size.payload));
    add("publishes", text(size.publishes));
    add("window", text(size.window));
    add("topics", text(size.topics));
    add("members", text(size.members));
    add("nodes", text(size.nodes));
    add("session", text(size.session));
    add("rate", size.rate.map(|rate| rate.to_string()));
    add("scale", size.scale.map(|scale| scale.to_string()));
    add("flood", size.flood.map(|flood| flood.to_string()));
    add("encrypted", size.encrypted.then(|| "yes".to_owned()));
    add("runs", Some(options.runs.to_string()));
    add("seconds", Some(options.seconds.to_string()));
    parts.join(", ")
}

/// A number with three significant digits, or whole.
pub fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Everything, with the figures of each run.
pub fn json(options: &Options, entries: &[Entry]) -> Value {
    let subject = entries.first();
    let contender = |entry: &Entry| {
        let object = |figures: Vec<(&str, f64)>| -> Map<String, Value> {
            figures.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
        };
        let medians = entry.names().into_iter();
        let medians = medians.filter_map(|name| Some((name, entry.median(name)?))).collect();
        let runs = entry
            .runs
            .iter()
            .map(|run| object(run.iter().map(|figure| (figure.name, figure.value)).collect()));
        let ratio = subject.and_then(|one| one.ratio(entry, compared(options.scenario)));
        json!({
            "name": entry.name,
            "median": object(medians),
            "runs": runs.collect::<Vec<_>>(),
            "subject_ratio": ratio,
        })
    };
    json!({
        "scenario": options.scenario.name(),
        "sizes": sizes(options),
        "contenders": entries.iter().map(contender).collect::<Vec<_>>(),
    })
}

/// Writes what the options ask for: `--json`, `--svg`.
pub fn write(options: &Options, results: &[(Options, Vec<Entry>)]) -> Result<()> {
    if let Some(path) = &options.json {
        let all: Vec<Value> =
            results.iter().map(|(options, entries)| json(options, entries)).collect();
        let text = serde_json::to_string_pretty(&all)?;
        if path.as_os_str() == "-" {
            println!("{text}");
        } else {
            std::fs::write(path, text)?;
        }
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, chart(results))?;
    }
    Ok(())
}

/// Bars of the compared figure, one per contender, with a dot for each run.
fn chart(results: &[(Options, Vec<Entry>)]) -> String {
    const LEFT: f64 = 260.0;
    const WIDTH: f64 = 420.0;
    const LINE: f64 = 22.0;
    const COLOURS: [&str; 3] = ["#2b6cb0", "#a0aec0", "#718096"];
    let mut body = String::new();
    let mut y = 10.0;
    for (options, entries) in results {
        let name = compared(options.scenario);
        let values = |entry: &Entry| -> Vec<f64> {
            entry.runs.iter().flatten().filter(|f| f.name == name).map(|f| f.value).collect()
        };
        let top = entries.iter().flat_map(values).fold(f64::MIN_POSITIVE, f64::max);
        let title = format!("{} ({}): {name}", options.scenario.name(), sizes(options));
        let _ =
            writeln!(body, r#"<text x="10" y="{}" font-weight="bold">{title}</text>"#, y + 14.0);
        y += LINE;
        for (entry, colour) in entries.iter().zip(COLOURS.iter().cycle()) {
            let median = entry.median(name).unwrap_or(0.0);
            let (label, width) = (number(median), median / top * WIDTH);
            let baseline = y + 13.0;
            let _ = writeln!(body, r#"<text x="10" y="{baseline}">{} {label}</text>"#, entry.name);
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="16" fill="{colour}"/>"#
            );
            for value in values(entry) {
                let (x, middle) = (LEFT + value / top * WIDTH, y + 8.0);
                let _ = writeln!(body, r#"<circle cx="{x:.1}" cy="{middle}" r="2.5"/>"#);
            }
            y += LINE;
        }
        y += LINE / 2.0;
    }
    let width = LEFT + WIDTH + 20.0;
    let size = format!(r#"width="{width}" height="{y}""#);
    let font = r#"font-family="sans-serif" font-size="13""#;
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size} {font}>\n{body}</svg>\n")
}
