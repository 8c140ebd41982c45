//! Connection parameters and credentials in the layouts of both documents (specification sections
//! 2.3 to 2.5 and 2.9).
//!
//! Costs: texts are slices of the message; no allocation but for the optional echo.

use bytes::Bytes;
use prost::Message;

use super::fields::{Fields, Malformed};
use super::request::Version;
use super::{Identity, proto};

/// Platforms of version 2, exact (section 1.8).
pub const PLATFORMS: [&str; 7] = ["android", "ios", "ipad", "windows", "macos", "linux", "web"];
/// Bytes that a platform of version 1 may have (section 5.2, step 1).
pub const V1_PLATFORM_BYTES_MAX: usize = 32;

/// Which bodies are accepted beside those of the path (section 2.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// `lenient_params`: a body of one document on the path of the other.
    pub lenient: bool,
    /// `legacy_paths`: the flat layout of an era between the documents.
    pub legacy: bool,
}

/// What set-params says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<'a> {
    /// The layout that the body has, whatever its path was.
    pub version: Version,
    pub package_id: &'a str,
    pub platform: &'a str,
    pub device_id: &'a str,
    pub device_model: &'a str,
    pub os_version: &'a str,
    pub app_version: &'a str,
    pub language: &'a str,
    pub network_used: &'a str,
    /// RSA ciphertexts of the seeds; empty when absent (section 3.4).
    pub aes_key: &'a [u8],
    pub aes_iv: &'a [u8],
    pub ext: &'a [u8],
}

impl<'a> Params<'a> {
    fn new(version: Version) -> Params<'a> {
        Params {
            version,
            package_id: "",
            platform: "",
            device_id: "",
            device_model: "",
            os_version: "",
            app_version: "",
            language: "",
            network_used: "",
            aes_key: &[],
            aes_iv: &[],
            ext: &[],
        }
    }

    /// Reads the body of a set-params request that came on the path of `path`.
    ///
    /// # Errors
    /// A body that the layout does not allow.
    pub fn parse(
        body: &'a [u8],
        path: Version,
        leniency: Leniency,
    ) -> Result<Params<'a>, Malformed> {
        match layout(body, path, leniency) {
            Layout::Flat => flat(body),
            Layout::Nested => nested(body),
            Layout::Old => {
                let mut params = Params::new(Version::V1);
                cxn_params(body, &mut params, false)?;
                Ok(params)
            }
        }
    }

    /// What the connection is known by besides user and platform (section 2.9).
    pub fn device(&self) -> &'a str {
        match self.version {
            Version::V2 if !self.package_id.is_empty() => self.package_id,
            _ => self.device_id,
        }
    }

    /// Whether the platform may be set: version 2 has a fixed set, version 1 a length. An empty
    /// one is refused by set-user.
    pub fn platform_allowed(&self) -> bool {
        match self.version {
            Version::V2 => PLATFORMS.contains(&self.platform),
            Version::V1 => self.platform.len() <= V1_PLATFORM_BYTES_MAX,
        }
    }

    /// Puts the parameters into an identity; the user and what the handshake said stay.
    pub fn apply(&self, identity: &mut Identity) {
        identity.platform = self.platform.to_owned();
        identity.device_id = self.device().to_owned();
        identity.package_id = self.package_id.to_owned();
        identity.device_model = self.device_model.to_owned();
        identity.os_version = self.os_version.to_owned();
        identity.app_version = self.app_version.to_owned();
        identity.language = self.language.to_owned();
        identity.network_used = self.network_used.to_owned();
    }

    /// The response of `echo_params`: version 1 gets its own message back, version 2 the layout of
    /// section 2.4.
    pub fn said(&self) -> Bytes {
        let bytes = Bytes::copy_from_slice;
        let seed = |seed: &[u8]| (!seed.is_empty()).then(|| bytes(seed));
        let out = match self.version {
            Version::V1 => proto::SetCxnParamsReqV1 {
                cxn_params: Some(proto::CxnParams {
                    platform: self.platform.into(),
                    device_id: self.device_id.into(),
                    device_model: self.device_model.into(),
                    os_version: self.os_version.into(),
                    app_version: self.app_version.into(),
                    language: self.language.into(),
                    network_used: self.network_used.into(),
                    ex: bytes(self.ext),
                }),
            }
            .encode_to_vec(),
            Version::V2 => proto::SetCxnParamsResp {
                platform: self.platform.into(),
                device_id: self.package_id.into(),
                device_model: self.device_model.into(),
                os_version: self.os_version.into(),
                app_version: self.app_version.into(),
                language: self.language.into(),
                network_used: self.network_used.into(),
                aes_key: seed(self.aes_key),
                aes_iv: seed(self.aes_iv),
                ext: bytes(self.ext),
            }
            .encode_to_vec(),
        };
        Bytes::from(out)
    }
}

/// What set-user says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserParams<'a> {
    pub user_id: &'a str,
    pub token: &'a str,
    pub ext: &'a [u8],
}

impl<'a> UserParams<'a> {
    /// Reads the body of a set-user request; both documents have the same.
    ///
    /// # Errors
    /// A body that is not a message, or a text that is not UTF-8.
    pub fn parse(body: &'a [u8]) -> Result<UserParams<'a>, Malformed> {
        let mut params = UserParams::default();
        for field in Fields::new(body) {
            let field = field?;
            match field.number {
                1 if field.is(1) => params.user_id = field.text()?,
                2 if field.is(2) => params.token = field.text()?,
                11 if field.is(11) => params.ext = field.value,
                _ => {}
            }
        }
        Ok(params)
    }

    /// The response of `echo_params` (vector V11g).
    pub fn said(&self) -> Bytes {
        let response = proto::SetUserParamsResp {
            user_id: self.user_id.into(),
            token: self.token.into(),
            ext: Bytes::copy_from_slice(self.ext),
        };
        Bytes::from(response.encode_to_vec())
    }
}

/// How the body of a set-params request is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Document 2.
    Flat,
    /// Document 1.
    Nested,
    /// The era between: the fields of document 1 without the message around them.
    Old,
}

/// The field-tag analysis of section 2.9.
fn layout(body: &[u8], path: Version, leniency: Leniency) -> Layout {
    let by_path = match path {
        Version::V1 => Layout::Nested,
        Version::V2 => Layout::Flat,
    };
    if !leniency.lenient && !leniency.legacy {
        return by_path;
    }
    let (mut first, mut second, mut only_first) = (None, None, true);
    for field in Fields::new(body) {
        let Ok(field) = field else { return by_path };
        only_first &= field.number == 1;
        match field.number {
            1 if field.is(1) => first = Some(field.value),
            2 if field.is(2) => second = Some(field.value),
            _ => {}
        }
    }
    let known = |value: Option<&[u8]>| {
        value.is_some_and(|value| PLATFORMS.iter().any(|known| known.as_bytes() == value))
    };
    if known(second) {
        return if leniency.lenient { Layout::Flat } else { by_path };
    }
    if only_first && first.is_some_and(is_cxn_params) {
        return if leniency.lenient { Layout::Nested } else { by_path };
    }
    if known(first) && leniency.legacy { Layout::Old } else { by_path }
}

/// Whether these are connection parameters of document 1, complete and with a known platform.
fn is_cxn_params(bytes: &[u8]) -> bool {
    let mut params = Params::new(Version::V1);
    cxn_params(bytes, &mut params, true).is_ok() && PLATFORMS.contains(&params.platform)
}

fn nested(body: &[u8]) -> Result<Params<'_>, Malformed> {
    let mut params = Params::new(Version::V1);
    for field in Fields::new(body) {
        let field = field?;
        if field.is(1) {
            cxn_params(field.value, &mut params, false)?;
        }
    }
    Ok(params)
}

/// Fields of document 1. `strict`: any other field is an error.
fn cxn_params<'a>(body: &'a [u8], params: &mut Params<'a>, strict: bool) -> Result<(), Malformed> {
    for field in Fields::new(body) {
        let field = field?;
        let place = match field.number {
            number if !field.is(number) && strict => return Err(Malformed),
            number if !field.is(number) => continue,
            1 => &mut params.platform,
            2 => &mut params.device_id,
            3 => &mut params.device_model,
            4 => &mut params.os_version,
            5 => &mut params.app_version,
            6 => &mut params.language,
            7 => &mut params.network_used,
            11 => {
                params.ext = field.value;
                continue;
            }
            _ if strict => return Err(Malformed),
            _ => continue,
        };
        *place = field.text()?;
    }
    Ok(())
}

/// Fields of document 2.
fn flat(body: &[u8]) -> Result<Params<'_>, Malformed> {
    let mut params = Params::new(Version::V2);
    for field in Fields::new(body) {
        let field = field?;
        let place = match field.number {
            number if !field.is(number) => continue,
            1 => &mut params.package_id,
            2 => &mut params.platform,
            3 => &mut params.device_id,
            4 => &mut params.device_model,
            5 => &mut params.os_version,
            6 => &mut params.app_version,
            7 => &mut params.language,
            8 => &mut params.network_used,
            9 => {
                params.aes_key = field.value;
                continue;
            }
            10 => {
                params.aes_iv = field.value;
                continue;
            }
            11 => {
                params.ext = field.value;
                continue;
            }
            _ => continue,
        };
        *place = field.text()?;
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::xxim::wire::proto::{CxnParams, SetCxnParamsReq, SetCxnParamsReqV1};

    const LENIENT: Leniency = Leniency { lenient: true, legacy: false };
    const LEGACY: Leniency = Leniency { lenient: true, legacy: true };
    const STRICT: Leniency = Leniency { lenient: false, legacy: false };

    fn v1(platform: &str) -> Vec<u8> {
        let params = CxnParams { platform: platform.into(), device_id: "d".into(), ..inner() };
        SetCxnParamsReqV1 { cxn_params: Some(params) }.encode_to_vec()
    }

    fn inner() -> CxnParams {
        CxnParams { language: "en".into(), ex: Bytes::from_static(b"ex"), ..CxnParams::default() }
    }

    fn v2(platform: &str) -> Vec<u8> {
        let package_id = "p".into();
        let device_id = "d".into();
        SetCxnParamsReq { package_id, device_id, platform: platform.into(), ..Default::default() }
            .encode_to_vec()
    }

    fn version(body: &[u8], path: Version, leniency: Leniency) -> (Version, String) {
        let params = Params::parse(body, path, leniency).expect("a message");
        (params.version, params.device().to_owned())
    }

    #[test]
    fn a_body_on_the_wrong_path_is_recognised() {
        for path in [Version::V1, Version::V2] {
            assert_eq!(version(&v1("ios"), path, LENIENT), (Version::V1, "d".into()));
            assert_eq!(version(&v2("web"), path, LENIENT), (Version::V2, "p".into()));
        }
        let ios = v1("ios");
        let strict = Params::parse(&ios, Version::V2, STRICT).expect("valid UTF-8");
        assert_eq!((strict.version, strict.platform), (Version::V2, ""));
        assert!(!strict.platform_allowed());
        // A platform that no document knows says nothing about the layout.
        assert_eq!(version(&v1("tv"), Version::V1, LENIENT).0, Version::V1);
        assert_eq!(version(&v2("tv"), Version::V2, LENIENT).0, Version::V2);
        let tv = v1("tv");
        let params = Params::parse(&tv, Version::V2, LENIENT).expect("valid UTF-8");
        assert_eq!((params.version, params.platform), (Version::V2, ""));
    }

    #[test]
    fn the_flat_layout_between_the_eras_needs_its_switch() {
        let body =
            CxnParams { platform: "ios".into(), device_id: "d".into(), ..inner() }.encode_to_vec();
        assert_eq!(version(&body, Version::V1, LEGACY), (Version::V1, "d".into()));
        let params = Params::parse(&body, Version::V2, LENIENT).expect("a message");
        assert_eq!((params.version, params.platform), (Version::V2, "d"));
        let only_legacy = Leniency { lenient: false, legacy: true };
        assert_eq!(version(&body, Version::V1, only_legacy), (Version::V1, "d".into()));
        assert_eq!(version(&v2("web"), Version::V2, only_legacy).0, Version::V2);
    }

    #[test]
    fn a_package_id_that_looks_like_a_message_is_not_one_beside_other_fields() {
        let mut body = v1("ios");
        body.extend_from_slice(b"\x22\x05model");
        assert_eq!(version(&body, Version::V2, LENIENT).0, Version::V2);
        let unknown = [&v1("ios")[..2], b"\x0a\x03ios\x42\x01x"].concat();
        let mut unknown = unknown;
        unknown[1] = (unknown.len() - 2) as u8;
        assert_eq!(version(&unknown, Version::V2, LENIENT).0, Version::V2);
        assert_eq!(version(&unknown, Version::V1, LENIENT).0, Version::V1);
    }

    #[test]
    fn texts_must_be_utf_8_and_an_empty_package_id_gives_way_to_the_device() {
        assert_eq!(Params::parse(b"\x0a\x01\xff", Version::V2, STRICT), Err(Malformed));
        assert_eq!(UserParams::parse(b"\x12\x01\xff"), Err(Malformed));
        let mut body = v2("web");
        body.drain(..3);
        assert_eq!(version(&body, Version::V2, STRICT), (Version::V2, "d".into()));
        let empty = Params::parse(b"", Version::V1, STRICT).expect("an empty message");
        assert!(empty.platform_allowed() && empty.device().is_empty());
        let long = v1(&"x".repeat(33));
        let long = Params::parse(&long, Version::V1, STRICT).expect("a message");
        assert!(!long.platform_allowed());
    }
}
