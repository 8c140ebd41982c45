//! Running the rules of a server for one event.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::found::walk;
use super::render::Style;
use super::suspended::{Answer, Call, Kept, Place, Suspended};
use super::{Event, Subject, is_channel};
use crate::config::model::MessageType;
use crate::hub::context::{Context, ContextValue};
use crate::protocols::connmix::config::server::{
    Action, ClientFraming, ConnmixServer, Content, Goodbye, Http, On, Rule, Template, Test,
};
use crate::protocols::connmix::limits::CHANNEL_BYTES_MAX;
use crate::spare::Look;
use crate::wire::json::{self, Index, ValueKind};
use crate::wire::path::has_dot_segment;

/// What closes a client of a strict server.
const STRICT: Goodbye = Goodbye { code: 1008, reason: "rule failed" };
/// What closes a client whose line is not a request (section 7.5, bundled framings).
const NOT_A_REQUEST: Goodbye = Goodbye { code: 1007, reason: "not a request" };
/// Topics that IM clients join by themselves (IM section 16).
const ROOMS: &str = "cr:";

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Subscribe(Box<str>),
    Unsubscribe(Box<str>),
    /// To this client.
    Send(MessageType, Bytes),
    /// The answer to a ping in text.
    Pong,
    Publish {
        channel: Name,
        kind: MessageType,
        data: Bytes,
    },
    /// `d` is a part of [`Effects::text`].
    Push {
        topic: Name,
        d: Range<usize>,
        /// Whether the rules wait until it is known what became of it ([`Answer::Push`]).
        waits: bool,
    },
    /// The context as a whole.
    Context(Context),
    /// Belong to this user; empty: to nobody.
    User(Box<str>),
    Close(Goodbye),
    /// An action of this rule (counted from 0) could not be done.
    Failed {
        rule: usize,
        action: &'static str,
    },
    /// No rule fits the message.
    NoRule,
    /// The peer broke its framing; close it and count that.
    Violation(Goodbye),
}

/// What is to be done, in order.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    /// Texts of [`Effect::Push`].
    pub text: String,
}

impl Effects {
    /// Ready for the next event; keeps its memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.text.clear();
    }

    /// Gives back what a peak took; between two events.
    pub fn give_back(&mut self, look: &mut Look) {
        self.clear();
        look.at(&mut self.list);
        look.at(&mut self.text);
    }
}

/// The name of a channel or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Fixed(Arc<str>),
    Made(Box<str>),
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Name::Fixed(name) => name,
            Name::Made(name) => name,
        }
    }
}

/// Why a suspended event goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed<'a> {
    /// The key is set, or it was not set in time; or it is known what became of a push: the rule
    /// goes on all the same.
    Waited,
    /// The body of a good answer.
    Answered(&'a [u8]),
    /// There was no good answer.
    Failed,
}

/// One event on its way through the rules.
pub struct Run<'a> {
    pub(super) server: &'a ConnmixServer,
    pub(super) subject: Subject<'a>,
    pub(super) kind: MessageType,
    pub(super) data: Option<&'a [u8]>,
    /// The message, if it is UTF-8.
    pub(super) text: Option<&'a str>,
    pub(super) context: Cow<'a, Context>,
    pub(super) captures: Vec<Option<Box<str>>>,
    /// Whether the message is JSON, once somebody has asked.
    json: Option<bool>,
    index: &'a mut Index,
    effects: &'a mut Effects,
}

/// How a list of actions ended.
enum Flow {
    Done,
    /// Nothing else is to be done with this event.
    Stop,
    Wait(Suspended),
}

/// How an action ended.
enum Acted {
    Done,
    Failed,
    Stop,
    Wait(Answer),
}

impl<'a> Run<'a> {
    /// Effects are appended to `effects`; `index` is memory that is used again.
    pub fn new(
        server: &'a ConnmixServer,
        subject: Subject<'a>,
        context: &'a Context,
        index: &'a mut Index,
        effects: &'a mut Effects,
    ) -> Run<'a> {
        let (kind, data) = match subject.event {
            Event::Message(kind, data) => (kind, Some(data)),
            Event::Open | Event::Close => (MessageType::Text, None),
        };
        Run {
            server,
            subject,
            kind,
            data,
            text: data.and_then(|data| simdutf8::basic::from_utf8(data).ok()),
            context: Cow::Borrowed(context),
            captures: Vec::new(),
            json: None,
            index,
            effects,
        }
    }

    /// Runs the rules. With a result the connection must wait; see [`Suspended`].
    pub fn start(mut self) -> Option<Suspended> {
        if self.data.is_some() {
            if self.server.text_ping && self.text.is_some_and(|text| text.trim_ascii() == "ping") {
                self.effects.list.push(Effect::Pong);
                return None;
            }
            let lines = self.subject.stream && self.server.framing == ClientFraming::JsonLine;
            if lines && !self.is_request() {
                self.effects.list.push(Effect::Violation(NOT_A_REQUEST));
                return None;
            }
        }
        self.rules(0, false)
    }

    /// Goes on after what `suspended` waited for. The subject must be that of its event.
    pub fn resume(mut self, suspended: &Suspended, how: Resumed<'_>) -> Option<Suspended> {
        let server = self.server;
        let place = suspended.place;
        let rule = server.rules.get(place.rule)?;
        let actions = list(rule, place.otherwise);
        self.captures.clone_from(&suspended.captures);
        if rule.uses.json {
            self.read_json();
        }
        let flow = match (actions.get(place.at), place.on_error) {
            (Some(Action::Http(http)), Some(at)) => self.on_error(place, http, at + 1),
            (Some(Action::Http(http)), None) if !self.take_answer(http, how) => {
                self.call_failed(place, http)
            }
            _ => self.run(place.rule, place.otherwise, place.at + 1),
        };
        match flow {
            Flow::Done if rule.continues => self.rules(place.rule + 1, true),
            Flow::Done | Flow::Stop => None,
            Flow::Wait(suspended) => Some(suspended),
        }
    }

    fn rules(mut self, first: usize, mut matched: bool) -> Option<Suspended> {
        let server = self.server;
        for (number, rule) in server.rules.iter().enumerate().skip(first) {
            let Some(otherwise) = self.fits(rule) else { continue };
            matched = true;
            match self.run(number, otherwise, 0) {
                Flow::Done if rule.continues => {}
                Flow::Done | Flow::Stop => return None,
                Flow::Wait(suspended) => return Some(suspended),
            }
        }
        if !matched && self.data.is_some() {
            self.effects.list.push(Effect::NoRule);
        }
        None
    }

    /// Whether the rule is to be run; if so, whether it is its `else`.
    fn fits(&mut self, rule: &Rule) -> Option<bool> {
        let on = match self.subject.event {
            Event::Open => On::Open,
            Event::Message(..) => On::Message,
            Event::Close => On::Close,
        };
        if rule.on != on || rule.kind.is_some_and(|kind| kind != self.kind) {
            return None;
        }
        if rule.uses.json {
            self.read_json();
        }
        if !rule.when.iter().all(|condition| self.holds(condition)) {
            return None;
        }
        let context_fits = rule.when_context.iter().all(|condition| self.holds(condition));
        if !context_fits && rule.otherwise.is_none() {
            return None;
        }
        if rule.uses.captures {
            self.captures = self.capture(rule);
        }
        Some(!context_fits)
    }

    /// The groups of the expression with the most groups.
    fn capture(&self, rule: &Rule) -> Vec<Option<Box<str>>> {
        let all = rule.when.iter().chain(&rule.when_context);
        let patterns = all.filter_map(|condition| match &condition.test {
            Test::Matches(pattern) => Some((condition, pattern)),
            _ => None,
        });
        // Of several with the same number the first one, as when the rule was checked.
        let most = patterns.reduce(|best, next| {
            if next.1.0.captures_len() > best.1.0.captures_len() { next } else { best }
        });
        most.map(|(condition, pattern)| self.captured(&condition.source, pattern))
            .unwrap_or_default()
    }

    fn read_json(&mut self) {
        if self.json.is_none() {
            self.json = Some(self.text.is_some_and(|text| self.index.fill(text)));
        }
    }

    /// The message as JSON.
    pub(super) fn json(&self) -> Option<json::Value<'_>> {
        self.json.filter(|good| *good)?;
        self.index.value(self.text?)
    }

    /// Section 7.5: lines are objects with `method` and `params`.
    fn is_request(&mut self) -> bool {
        self.read_json();
        let Some(root) = self.json() else { return false };
        root.kind() == ValueKind::Object
            && root.get("method").is_some()
            && root.get("params").is_some()
    }

    fn run(&mut self, number: usize, otherwise: bool, from: usize) -> Flow {
        let server = self.server;
        let actions = server.rules.get(number).map_or(&[][..], |rule| list(rule, otherwise));
        for (at, action) in actions.iter().enumerate().skip(from) {
            let place = Place { rule: number, otherwise, at, on_error: None };
            match self.act(action, at + 1 == actions.len()) {
                Acted::Done => {}
                Acted::Stop => return Flow::Stop,
                Acted::Wait(awaits) => return self.suspend(place, awaits),
                Acted::Failed => {
                    if let Action::Http(http) = action {
                        return self.call_failed(place, http);
                    }
                    if self.failed(number, action.name()) {
                        return Flow::Stop;
                    }
                }
            }
        }
        Flow::Done
    }

    fn suspend(&mut self, place: Place, awaits: Answer) -> Flow {
        let event = match self.subject.event {
            Event::Open => Kept::Open,
            Event::Message(kind, data) => Kept::Message(kind, data.into()),
            Event::Close => Kept::Close,
        };
        let captures = std::mem::take(&mut self.captures);
        Flow::Wait(Suspended { awaits, place, event, captures })
    }

    /// An action could not be done; says whether that ends the connection.
    fn failed(&mut self, rule: usize, action: &'static str) -> bool {
        self.effects.list.push(Effect::Failed { rule, action });
        if self.server.strict {
            self.effects.list.push(Effect::Close(STRICT));
        }
        self.server.strict
    }

    /// There was no request or no good answer: `on_error` takes the place of everything that would
    /// follow.
    fn call_failed(&mut self, place: Place, http: &Http) -> Flow {
        self.effects.list.push(Effect::Failed { rule: place.rule, action: "http" });
        if http.on_error.is_empty() && self.server.strict {
            self.effects.list.push(Effect::Close(STRICT));
        }
        self.on_error(place, http, 0)
    }

    fn on_error(&mut self, place: Place, http: &Http, from: usize) -> Flow {
        for (at, action) in http.on_error.iter().enumerate().skip(from) {
            match self.act(action, at + 1 == http.on_error.len()) {
                Acted::Stop => break,
                Acted::Failed if self.failed(place.rule, action.name()) => break,
                Acted::Wait(awaits) => {
                    return self.suspend(Place { on_error: Some(at), ..place }, awaits);
                }
                _ => {}
            }
        }
        Flow::Stop
    }

    /// Copies what an answer says into the context; says whether everything was there.
    fn take_answer(&mut self, http: &Http, how: Resumed<'_>) -> bool {
        let body = match how {
            Resumed::Answered(body) => body,
            Resumed::Waited | Resumed::Failed => return false,
        };
        if http.set.is_empty() {
            return true;
        }
        let mut index = Index::default();
        let Some(root) = index.read(body) else { return false };
        let value = |(key, place): &(Box<str>, Vec<_>)| {
            let value = walk(root, place).filter(|value| !value.is_null())?;
            Some((key.clone(), Some(Box::from(value.text()))))
        };
        let values: Option<Vec<ContextValue>> = http.set.iter().map(value).collect();
        values.is_some_and(|values| self.set(&values))
    }

    /// Changes the context; says whether there was room.
    fn set(&mut self, values: &[ContextValue]) -> bool {
        if self.context.to_mut().set(values).is_err() {
            return false;
        }
        self.effects.list.push(Effect::Context(self.context.as_ref().clone()));
        true
    }

    /// `last`: nothing of the rule is behind it.
    fn act(&mut self, action: &Action, last: bool) -> Acted {
        let done = match action {
            Action::Subscribe(channels) => self.channels(channels, true),
            Action::Unsubscribe(channels) => self.channels(channels, false),
            Action::Send(content) => {
                let content = self.content(content);
                content.map(|(kind, data)| self.effects.list.push(Effect::Send(kind, data)))
            }
            Action::Publish { channel, content } => self.publish(channel, content),
            Action::Push(push) => match self.push(push, last) {
                Some(true) => return Acted::Wait(Answer::Push),
                pushed => pushed.map(|_| ()),
            },
            Action::Set(values) => self.assign(values),
            Action::Unset(keys) => {
                let values: Vec<ContextValue> =
                    keys.iter().map(|key| (key.clone(), None)).collect();
                self.set(&values).then_some(())
            }
            Action::User(template) => {
                let user = self.rendered(template).filter(|user| user.len() <= CHANNEL_BYTES_MAX);
                user.map(|user| self.effects.list.push(Effect::User(user.into())))
            }
            Action::Wait { key, timeout } => {
                if self.context.get(key).is_some() {
                    return Acted::Done;
                }
                return Acted::Wait(Answer::Key { key: key.clone(), timeout: *timeout });
            }
            Action::Http(http) => match self.call(http) {
                Some(call) => return Acted::Wait(Answer::Call(call)),
                None => None,
            },
            Action::Close(goodbye) => {
                self.effects.list.push(Effect::Close(*goodbye));
                return Acted::Stop;
            }
        };
        if done.is_some() { Acted::Done } else { Acted::Failed }
    }

    /// All channels or none.
    fn channels(&mut self, templates: &[Template], subscribe: bool) -> Option<()> {
        let mut names = Vec::new();
        for template in templates {
            let first = names.len();
            self.each(template, |name| names.push(name))?;
            let legal = |name: &String| is_channel(name) && self.may_use(template, name);
            if subscribe && !names[first..].iter().all(legal) {
                return None;
            }
        }
        let effect = |name: String| match subscribe {
            true => Effect::Subscribe(name.into()),
            false => Effect::Unsubscribe(name.into()),
        };
        self.effects.list.extend(names.into_iter().map(effect));
        Some(())
    }

    /// Rooms of IM are entered only by rules that name them.
    fn may_use(&self, template: &Template, channel: &str) -> bool {
        let rooms = channel.starts_with(ROOMS) && !template.prefix().starts_with(ROOMS);
        !rooms || self.server.allow_any_channel
    }

    fn name(&self, template: &Template) -> Option<Name> {
        match template.constant() {
            Some(name) => Some(Name::Fixed(name.clone())),
            None => Some(Name::Made(self.rendered(template)?.into())),
        }
    }

    fn publish(&mut self, channel: &Template, content: &Content) -> Option<()> {
        let name = self.name(channel)?;
        if !is_channel(&name) || !self.may_use(channel, &name) {
            return None;
        }
        let (kind, data) = self.content(content)?;
        self.effects.list.push(Effect::Publish { channel: name, kind, data });
        Some(())
    }

    /// Says whether what is behind it has to wait.
    fn push(
        &mut self,
        push: &crate::protocols::connmix::config::server::Push,
        last: bool,
    ) -> Option<bool> {
        let topic = self.name(&push.topic)?;
        let mut text = std::mem::take(&mut self.effects.text);
        let start = text.len();
        let made = self.push_d(push, &mut text);
        let d = start..text.len();
        self.effects.text = text;
        made?;
        let waits = !last && !self.subject.homes.tell_at_once(&topic);
        self.effects.list.push(Effect::Push { topic, d, waits });
        Some(waits)
    }

    fn assign(
        &mut self,
        values: &[(Box<str>, crate::protocols::connmix::config::server::Assigned)],
    ) -> Option<()> {
        let mut changes: Vec<ContextValue> = Vec::with_capacity(values.len());
        for (key, value) in values {
            let mut json = String::new();
            self.push_assigned(value, &mut json)?;
            changes.push((key.clone(), Some(json.into())));
        }
        self.set(&changes).then_some(())
    }

    fn content(&self, content: &Content) -> Option<(MessageType, Bytes)> {
        Some(match content {
            Content::Fixed(kind, data) => (*kind, data.clone()),
            Content::Text(template) => (MessageType::Text, self.rendered(template)?.into()),
            Content::Binary(template) => {
                let bytes = STANDARD.decode(self.rendered(template)?).ok()?;
                (MessageType::Binary, bytes.into())
            }
        })
    }

    fn call(&self, http: &Http) -> Option<Call> {
        let mut url = String::new();
        self.render(&http.url, Style::Url, &mut url)?;
        // The constants have none: it could only come from a reference, and lead anywhere.
        if has_dot_segment(&url) {
            return None;
        }
        let body = self.rendered(&http.body)?;
        if url.len() + body.len() > http.request_bytes_max {
            return None;
        }
        Some(Call {
            method: http.method.clone(),
            url,
            body: body.into(),
            content_type: http.content_type.clone(),
            timeout: http.timeout,
            answer_bytes_max: if http.set.is_empty() { 0 } else { http.answer_bytes_max },
        })
    }
}

fn list(rule: &Rule, otherwise: bool) -> &[Action] {
    match (&rule.otherwise, otherwise) {
        (Some(actions), true) => actions,
        _ => &rule.actions,
    }
}
