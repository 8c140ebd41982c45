//! What of a client goes to a queue: the JSON text of `d` (connmix section 3.5).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::found::inside;
use super::run::Run;
use crate::config::model::MessageType;
use crate::protocols::connmix::config::server::{Member, Push};
use crate::wire::json::push_string;

impl Run<'_> {
    /// Appends `d`. `None`: something that it refers to is not there. A context key that is not
    /// set is left out, as it would be in a Lua table.
    pub(super) fn push_d(&self, push: &Push, out: &mut String) -> Option<()> {
        let start = out.len();
        for (name, member) in &push.members {
            let before = out.len();
            out.push(if before == start { '{' } else { ',' });
            out.push_str(name);
            match member {
                Member::Fixed(json) => out.push_str(json),
                Member::Frame => self.push_frame(out)?,
                Member::Headers => self.subject.head?.push_headers(out),
                Member::Query => self.subject.head?.push_query(out),
                Member::RemoteAddr => push_string(out, &self.subject.peer.to_string()),
                Member::Context(place) => {
                    let value = self.context.get(&place.key);
                    match value.and_then(|value| inside(value, &place.path)) {
                        Some(value) if value != "null" => out.push_str(value),
                        _ => out.truncate(before),
                    }
                }
                Member::Made(assigned) => self.push_assigned(assigned, out)?,
            }
        }
        // The empty table is an empty array.
        out.push_str(if out.len() == start { "[]" } else { "}" });
        Some(())
    }

    fn push_frame(&self, out: &mut String) -> Option<()> {
        match (self.kind, self.text) {
            (MessageType::Text, Some(text)) => {
                out.push_str(r#"{"type":"text","data":"#);
                push_string(out, text);
            }
            _ => {
                out.push_str(r#"{"type":"binary","data":""#);
                STANDARD.encode_string(self.data?, out);
                out.push('"');
            }
        }
        out.push_str(r#","finish":true}"#);
        Some(())
    }
}
