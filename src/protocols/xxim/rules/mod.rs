//! xxim clients, sans-io: what a message means, given what the client has said before
//! (specification sections 0.4, 2.9, 3.4 to 3.7, 4.1 and 5.2).
//!
//! [`Client`] takes messages and the answers of others (decrypted seeds, verdicts, the registry of
//! logins) and says what to do next, as a [`Step`]. Set-params and set-user are barriers: while
//! one is under way the owner hands in no message, so that what follows is read under the state
//! that they lead to. Invariants: every request ends in exactly one answer or in the end of the
//! connection; keys change together with the response that is the first under the new ones; an
//! identity that a request carries is never changed, only replaced.
//! Costs: a request that is forwarded allocates nothing here.

mod holders;
mod in_flight;
mod origin;
mod turns;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::hub::login::{Login, Permission, Question, Verdict};
use crate::protocols::xxim::config::{Xxim, XximEra};
use crate::protocols::xxim::limits::{XXIM_PARAM_BYTES_MAX, XXIM_TOKEN_BYTES_MAX};
use crate::protocols::xxim::wire::cipher::{Cipher, Seeds};
use crate::protocols::xxim::wire::{
    self as wire, ClientRequest, Identity, Leniency, LocalMethod, PLATFORMS, Params, UserParams,
    V1_PLATFORM_BYTES_MAX, Version, code, text,
};

pub use holders::{Claimed, Holders, Triple};
pub use in_flight::InFlight;
pub use origin::{cors, first_values, query_login};
pub use turns::{TurnRules, Turns};

/// Bytes below which `strict_seeds` refuses a seed (section 9.2).
const STRICT_SEED_BYTES: usize = 16;

/// Why a connection is closed (section 1.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    /// Cut to 123 bytes when it is sent.
    pub text: Cow<'static, str>,
}

impl Close {
    pub const PROTOCOL: Close = Close::of(1008, "protocol error");
    pub const DUPLICATE: Close = Close::of(1000, "duplicate connection");
    pub const TIMEOUT: Close = Close::of(1000, "shake hand timeout");
    pub const KICK: Close = Close::of(1001, "kick");
    const RSA: Close = Close::of(3001, "rsa decrypt failed");
    const PLATFORM: Close = Close::of(3002, "platform failed");
    const DEVICE: Close = Close::of(3003, "deviceId failed");

    const fn of(code: u16, text: &'static str) -> Close {
        Close { code, text: Cow::Borrowed(text) }
    }

    fn auth(text: impl Into<Cow<'static, str>>) -> Close {
        Close { code: 3000, text: text.into() }
    }
}

/// The response to a request, and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's reqId and method as they go back; see [`wire::head`].
    pub head: Bytes,
    pub code: i32,
    pub data: Bytes,
    /// Close after it.
    pub close: Option<Close>,
}

/// What to do next for a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    Nothing,
    Answer(Answer),
    Close(Close),
    /// Have these RSA ciphertexts decrypted, then call [`Client::unwrapped`]. A barrier.
    Unwrap {
        key: Option<Bytes>,
        iv: Option<Bytes>,
    },
    /// Have this login verified, then call [`Client::verified`]. A barrier.
    Verify(Box<Login>),
    /// Make the connection the holder of this triple, then call [`Client::claimed`]. A barrier.
    Claim(Triple),
    /// Have a backend asked whether the request may be, then hand its message in again with `asks`
    /// off, or call [`forbidden`]. Until then the owner hands in no other.
    Check(ClientRequest<'a>),
    /// The request goes to an upstream.
    Forward(ClientRequest<'a>),
}

/// What is known about one client.
pub struct Client {
    identity: Arc<Identity>,
    /// The identity as backends read it.
    common_req: Bytes,
    /// The document that the last set-params followed.
    version: Option<Version>,
    cipher: Option<Rc<Cipher>>,
    /// With `iv_mode = "server"`: the seed that the client was told.
    server_iv: Option<Zeroizing<Vec<u8>>>,
    barrier: Option<Box<Barrier>>,
    /// Set-params with keys so far.
    keyed: u32,
}

/// A set-params or set-user that is not answered yet, and what is true once it is.
struct Barrier {
    /// `None`: the query of the handshake asked; there is no response.
    head: Option<Bytes>,
    data: Bytes,
    identity: Identity,
    keys: Keys,
}

/// What becomes of the encryption.
enum Keys {
    /// Set-user leaves it alone.
    Stay,
    /// Set-params replaces it, with nothing in case of `None`.
    Become { cipher: Option<Rc<Cipher>>, version: Version },
}

impl Client {
    /// A client that has said nothing yet. `server_iv`: the seed of its greeting, if it gets one.
    pub fn new(identity: Identity, server_iv: Option<Zeroizing<Vec<u8>>>) -> Client {
        let common_req = wire::common_req(&identity);
        let identity = Arc::new(identity);
        let (version, cipher, barrier) = (None, None, None);
        Client { identity, common_req, version, cipher, server_iv, barrier, keyed: 0 }
    }

    /// Who the client is, for the requests that come now.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The same as an encoded CommonReq.
    pub fn common_req(&self) -> &Bytes {
        &self.common_req
    }

    /// The document that the client follows, if it has set its parameters.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// What messages to the client are encrypted with.
    pub fn cipher(&self) -> Option<&Rc<Cipher>> {
        self.cipher.as_ref()
    }

    /// Whether a set-params or set-user is under way: no message may be handed in.
    pub fn at_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    /// The user, device and platform that the connection holds.
    fn triple(&self) -> Option<Triple> {
        self.identity.logged_in().then(|| Triple::of(&self.identity))
    }

    /// A message of the client, decrypted if the connection is. `white` says which further methods
    /// may be called before login; with `asks` a backend is asked about all others.
    pub fn message<'a>(
        &mut self,
        message: &'a [u8],
        config: &Xxim,
        asks: bool,
        white: impl Fn(&str) -> bool,
    ) -> Step<'a> {
        debug_assert!(!self.at_barrier(), "a message behind a barrier");
        let request = match ClientRequest::parse(message) {
            Ok(request) => request,
            // Damaged padding and damaged messages look the same (section 9.2).
            Err(_) if self.cipher.is_some() => return Step::Close(Close::PROTOCOL),
            Err(partial) => return fail(&partial, code::INTERNAL, Some(text::BUSY), None),
        };
        let local = wire::local_method(request.method, config.legacy_paths);
        let plain = config.crypto.require_encryption && self.cipher.is_none();
        match local {
            Some(LocalMethod::SetParams(path)) => self.set_params(&request, path, config),
            _ if plain => fail(&request, code::REQUEST, None, Some(Close::PROTOCOL)),
            Some(LocalMethod::SetUser) => self.set_user(&request, config),
            local => {
                let open = wire::is_white(request.method) || white(request.method);
                if !self.identity.logged_in() && !open {
                    return fail(&request, code::AUTH, Some(text::NOT_LOGGED_IN), None);
                }
                match local {
                    _ if asks && !open => Step::Check(request),
                    Some(_) => Step::Answer(answer(head(&request), Bytes::new())),
                    None => Step::Forward(request),
                }
            }
        }
    }

    fn set_params(
        &mut self,
        request: &ClientRequest<'_>,
        path: Version,
        config: &Xxim,
    ) -> Step<'static> {
        let leniency = Leniency { lenient: config.lenient_params, legacy: config.legacy_paths };
        let Ok(params) = Params::parse(request.data, path, leniency) else {
            return fail(request, code::REQUEST, None, None);
        };
        if config.era == XximEra::C && !params.platform_allowed() {
            return misfit(request, Close::PLATFORM, config);
        }
        let mut identity = Identity::clone(&self.identity);
        params.apply(&mut identity);
        if !fits(&identity) {
            return fail(request, code::REQUEST, None, None);
        }
        let ciphertext = |bytes: &[u8]| (!bytes.is_empty()).then(|| Bytes::copy_from_slice(bytes));
        let (key, iv) = (ciphertext(params.aes_key), ciphertext(params.aes_iv));
        let keyed = key.is_some() || iv.is_some();
        if keyed && self.keyed >= config.crypto.keyed_max {
            return fail(request, code::RETRY, Some(text::RETRY), None);
        }
        if keyed && config.crypto.private_key.is_none() {
            return Step::Close(Close::RSA);
        }
        self.barrier = Some(Box::new(Barrier {
            head: Some(head(request)),
            data: if config.echo_params { params.said() } else { Bytes::new() },
            identity,
            keys: Keys::Become { cipher: None, version: params.version },
        }));
        if keyed {
            self.keyed += 1;
            return Step::Unwrap { key, iv };
        }
        self.keyed_or_not(None, config)
    }

    /// The seeds of a set-params request were decrypted; `None`: they are not ciphertexts of the
    /// gateway's key.
    pub fn unwrapped(&mut self, seeds: Option<&Seeds>, config: &Xxim) -> Step<'static> {
        let Some(Seeds { key, iv }) = seeds else { return Step::Close(Close::RSA) };
        let least = if config.crypto.strict_seeds { STRICT_SEED_BYTES } else { 1 };
        if [key, iv].into_iter().flatten().any(|seed| seed.len() < least) {
            return Step::Close(Close::RSA);
        }
        let iv = if config.crypto.server_iv { self.server_iv.as_ref() } else { iv.as_ref() };
        let cipher = key.as_ref().zip(iv).map(|(key, iv)| Rc::new(Cipher::new(key, iv)));
        self.keyed_or_not(cipher, config)
    }

    /// The keys of a set-params request are known, or that it has none.
    fn keyed_or_not(&mut self, cipher: Option<Rc<Cipher>>, config: &Xxim) -> Step<'static> {
        let Some(barrier) = &mut self.barrier else { return Step::Nothing };
        if cipher.is_none() && config.crypto.require_encryption {
            let head = barrier.head.take().unwrap_or_default();
            self.barrier = None;
            return refuse(head, code::REQUEST, None, Some(Close::PROTOCOL));
        }
        if let Keys::Become { cipher: next, .. } = &mut barrier.keys {
            *next = cipher;
        }
        let triple = Triple::of(&barrier.identity);
        if barrier.identity.logged_in() && self.triple().is_none_or(|held| held != triple) {
            return Step::Claim(triple);
        }
        self.claimed()
    }

    fn set_user(&mut self, request: &ClientRequest<'_>, config: &Xxim) -> Step<'static> {
        let Ok(user) = UserParams::parse(request.data) else {
            return fail(request, code::REQUEST, None, None);
        };
        if let Some(close) = self.unfit(config.era) {
            return misfit(request, close, config);
        }
        let data = if config.echo_params { user.said() } else { Bytes::new() };
        self.log_in(Some(head(request)), user.user_id, user.token, data, config)
    }

    /// Why a client with these parameters can not log in (section 5.2, step 1).
    fn unfit(&self, era: XximEra) -> Option<Close> {
        if era == XximEra::B {
            return None;
        }
        let platform = self.identity.platform.as_str();
        let known = match self.version {
            Some(Version::V1) => !platform.is_empty() && platform.len() <= V1_PLATFORM_BYTES_MAX,
            _ => PLATFORMS.contains(&platform),
        };
        match () {
            () if !known => Some(Close::PLATFORM),
            () if self.identity.device_id.is_empty() => Some(Close::DEVICE),
            () => None,
        }
    }

    /// A login by the query of the handshake (section 1.1); it has no response.
    pub fn query_login(&mut self, user: &str, token: &str, config: &Xxim) -> Step<'static> {
        match self.unfit(config.era) {
            Some(close) => Step::Close(close),
            None if !fits(&self.identity) => Step::Close(Close::auth(text::AUTH_FAILED)),
            None => self.log_in(None, user, token, Bytes::new(), config),
        }
    }

    fn log_in(
        &mut self,
        head: Option<Bytes>,
        user: &str,
        token: &str,
        data: Bytes,
        config: &Xxim,
    ) -> Step<'static> {
        if user.is_empty() || token.is_empty() {
            return self.refused(head, text::NO_CREDENTIALS, config);
        }
        if user.len() > XXIM_PARAM_BYTES_MAX || token.len() > XXIM_TOKEN_BYTES_MAX {
            return match head {
                Some(head) => refuse(head, code::REQUEST, None, None),
                None => Step::Close(Close::auth(text::AUTH_FAILED)),
            };
        }
        if self.identity.user_id == user && self.identity.token == token {
            return head.map_or(Step::Nothing, |head| Step::Answer(answer(head, data)));
        }
        let mut identity = Identity::clone(&self.identity);
        identity.user_id = user.to_owned();
        identity.token = token.to_owned();
        let login = Login {
            protocol: "xxim",
            question: Question::BeforeConnect,
            user: identity.user_id.clone(),
            token: identity.token.clone(),
            ip: identity.ip.clone(),
            platform: identity.platform.clone(),
            device: identity.device_id.clone(),
            network: identity.network_used.clone(),
            headers: identity.headers.to_vec(),
        };
        self.barrier = Some(Box::new(Barrier { head, data, identity, keys: Keys::Stay }));
        Step::Verify(Box::new(login))
    }

    /// A login was refused with this text: code 4, then close 3000 (section 5.2, step 3).
    fn refused(&self, head: Option<Bytes>, msg: &str, config: &Xxim) -> Step<'static> {
        let close = Close::auth(msg.to_owned());
        match head.filter(|_| config.respond_then_close) {
            Some(head) => refuse(head, code::AUTH, Some(msg), Some(close)),
            None => Step::Close(close),
        }
    }

    /// The verifier has decided about a login.
    pub fn verified(&mut self, verdict: Verdict, config: &Xxim) -> Step<'static> {
        let Some(barrier) = &mut self.barrier else { return Step::Nothing };
        let msg = match verdict {
            Verdict::Accepted { .. } => {
                let triple = Triple::of(&barrier.identity);
                return Step::Claim(triple);
            }
            Verdict::Refused { message, .. } if !message.is_empty() => Cow::Owned(message),
            Verdict::Refused { code: 0, .. } => Cow::Borrowed(text::AUTH_FAILED),
            Verdict::Refused { .. } => Cow::Borrowed(text::LOGGED_IN_ELSEWHERE),
            Verdict::Unavailable(_) => {
                let retries = !config.close_when_unavailable;
                if let Some(head) = barrier.head.take_if(|_| retries) {
                    self.barrier = None;
                    return refuse(head, code::RETRY, Some(text::RETRY), None);
                }
                Cow::Borrowed(text::AUTH_FAILED)
            }
        };
        let head = barrier.head.take();
        self.barrier = None;
        self.refused(head, &msg, config)
    }

    /// The connection holds its triple, or needs none: what the barrier wanted is true from here
    /// on, the response included.
    pub fn claimed(&mut self) -> Step<'static> {
        let Some(barrier) = self.barrier.take() else { return Step::Nothing };
        let Barrier { head, data, identity, keys } = *barrier;
        self.common_req = wire::common_req(&identity);
        self.identity = Arc::new(identity);
        if let Keys::Become { cipher, version } = keys {
            self.cipher = cipher;
            self.version = Some(version);
        }
        match head {
            Some(head) => Step::Answer(answer(head, data)),
            None => Step::Nothing,
        }
    }
}

/// Without anything secret.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("identity", &self.identity)
            .field("version", &self.version)
            .field("encrypted", &self.cipher.is_some())
            .finish_non_exhaustive()
    }
}

/// What becomes of a request that a backend does not permit.
pub fn forbidden(head: Bytes, verdict: Permission, config: &Xxim) -> Step<'static> {
    match verdict {
        Permission::Refused { code, data } => {
            Step::Answer(Answer { head, code, data, close: None })
        }
        Permission::Banned(msg) => {
            let close = Close::auth(msg.clone());
            match config.respond_then_close {
                true => refuse(head, code::AUTH, Some(&msg), Some(close)),
                false => Step::Close(close),
            }
        }
        // As the original, whose clients log out then.
        Permission::Granted | Permission::Unavailable => {
            refuse(head, code::AUTH, Some(text::AUTH_FAILED), None)
        }
    }
}

/// Whether every text among the parameters is as short as it must be.
fn fits(identity: &Identity) -> bool {
    let Identity { platform, device_id, package_id, device_model, .. } = identity;
    let Identity { os_version, app_version, language, network_used, .. } = identity;
    let own = [platform, device_id, package_id, device_model];
    let others = [os_version, app_version, language, network_used];
    own.iter().chain(&others).all(|text| text.len() <= XXIM_PARAM_BYTES_MAX)
}

fn head(request: &ClientRequest<'_>) -> Bytes {
    wire::head(request.req_id, request.method).0
}

fn answer(head: Bytes, data: Bytes) -> Answer {
    Answer { head, code: code::SUCCESS, data, close: None }
}

/// An answer with a CommonResp.
pub fn refuse(head: Bytes, code: i32, msg: Option<&str>, close: Option<Close>) -> Step<'static> {
    Step::Answer(Answer { head, code, data: wire::common_resp(code, msg), close })
}

/// Platform or device will not do: code 3, then the close (section 1.8, `auth_fail`).
fn misfit(request: &ClientRequest<'_>, close: Close, config: &Xxim) -> Step<'static> {
    match config.respond_then_close {
        true => fail(request, code::REQUEST, None, Some(close)),
        false => Step::Close(close),
    }
}

fn fail(
    request: &ClientRequest<'_>,
    code: i32,
    msg: Option<&str>,
    close: Option<Close>,
) -> Step<'static> {
    refuse(head(request), code, msg, close)
}
