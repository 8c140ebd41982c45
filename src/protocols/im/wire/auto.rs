//! What `len` counts on a connection, judged by its first frame (section 2, `auto`).
//!
//! A frame fits a mode if its `len` is that of a guest, who sends no body, or if the body that the
//! mode gives it is the complete LOGIN of a user. A LOGIN that is complete is never kept waiting
//! for more, so of several modes the one that counts most is taken; only where a `len` may be that
//! of a guest or that of a user the order of the configuration decides.

use super::decode::Rules;
use super::{Compression, Gzip, Header, LenMode};

/// The modes that clients may have (`im.len_auto`): two or three, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    list: [LenMode; 3],
    count: u8,
}

/// Every mode; the one that counts most comes first.
const ALL: [LenMode; 3] = [LenMode::Frame, LenMode::Rest, LenMode::Body];

impl Modes {
    /// `None`: not two or three, or one of them twice.
    pub fn of(modes: &[LenMode]) -> Option<Modes> {
        let twice = ALL.iter().any(|mode| modes.iter().filter(|other| *other == mode).count() > 1);
        if !(2..=ALL.len()).contains(&modes.len()) || twice {
            return None;
        }
        let mut list = [LenMode::Body; ALL.len()];
        list[..modes.len()].copy_from_slice(modes);
        Some(Modes { list, count: modes.len() as u8 })
    }

    fn list(&self) -> &[LenMode] {
        &self.list[..usize::from(self.count)]
    }

    /// The one that counts least, which is taken when a frame fits none.
    pub(super) fn least(self) -> LenMode {
        let least = ALL.into_iter().rev().find(|mode| self.list().contains(mode));
        least.unwrap_or_default()
    }

    /// The mode of a connection whose first frame begins like this.
    ///
    /// # Errors
    /// So many bytes of the body are needed to tell.
    pub(super) fn judge(
        self,
        header: Header,
        body: &[u8],
        rules: &Rules,
        gzip: &mut Gzip,
    ) -> Result<LenMode, usize> {
        let guest = self.list().iter().position(|mode| mode.extra() == header.len);
        let preferred = &self.list()[..guest.unwrap_or(self.list().len())];
        let otherwise = guest.map_or(self.least(), |at| self.list[at]);
        for mode in ALL.into_iter().filter(|mode| preferred.contains(mode)) {
            if mode == otherwise {
                break;
            }
            let body_bytes = header.len.checked_sub(mode.extra());
            let Some(bytes) = body_bytes.filter(|bytes| *bytes <= rules.body_bytes_max) else {
                continue;
            };
            let body = body.get(..bytes as usize).ok_or(bytes as usize)?;
            if is_user(header, body, rules, gzip) {
                return Ok(mode);
            }
        }
        Ok(otherwise)
    }
}

/// Whether these bytes are the complete LOGIN of a user.
fn is_user(header: Header, body: &[u8], rules: &Rules, gzip: &mut Gzip) -> bool {
    let plain = match header.compression() {
        Compression::None => Ok(body),
        Compression::Gzip => gzip.inflate(body, rules.plain_bytes_max as usize),
        Compression::Reserved => return false,
    };
    let login = plain.ok().and_then(|plain| rules.login.decode(plain).ok());
    login.is_some_and(|login| !login.token.is_empty() && !login.user_id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::im::wire::{ByteOrder, LenRule, LoginFields, Versions};
    use LenMode::{Body, Frame, Rest};

    fn judge(modes: &[LenMode], len: u32, body: &[u8]) -> Result<LenMode, usize> {
        judge_as(modes, 0x10, len, body)
    }

    fn judge_as(modes: &[LenMode], flag: u8, len: u32, body: &[u8]) -> Result<LenMode, usize> {
        let modes = Modes::of(modes).expect("two or three modes");
        let rules = Rules {
            len: LenRule::Auto(modes),
            order: ByteOrder::Big,
            login: LoginFields { token: 2, user_id: 7 },
            body_bytes_max: 100,
            plain_bytes_max: 200,
            versions: Versions::CURRENT,
            only: Some(1),
        };
        let header = Header { len, seq: 1, command: 1, flag, status: 0 };
        modes.judge(header, body, &rules, &mut Gzip::new())
    }

    /// A LOGIN of 15 bytes.
    const USER: &[u8] = b"\x12\x06tok-42\x3a\x05u1001";
    /// The shortest LOGIN that has 7 bytes.
    const SEVEN: &[u8] = b"\x12\x01t\x3a\x02u1";

    #[test]
    fn lists_have_two_or_three_different_modes() {
        assert!(Modes::of(&[Rest]).is_none() && Modes::of(&[Rest, Rest]).is_none());
        assert!(Modes::of(&[Rest, Body, Frame, Rest]).is_none() && Modes::of(&[]).is_none());
        let least = |modes: &[LenMode]| Modes::of(modes).expect("they differ").least();
        assert_eq!((least(&[Body, Frame, Rest]), least(&[Rest, Frame])), (Body, Rest));
    }

    #[test]
    fn a_complete_login_is_read_as_what_its_length_says_and_never_waits() {
        let orders = [[Body, Rest, Frame], [Frame, Rest, Body], [Rest, Body, Frame]];
        for modes in orders {
            for mode in modes {
                let len = mode.len(USER.len());
                assert_eq!(judge(&modes, len, USER), Ok(mode), "{modes:?}");
                let packed = Gzip::new().compress(USER);
                assert_eq!(judge_as(&modes, 0x14, mode.len(packed.len()), &packed), Ok(mode));
            }
        }
        assert_eq!(judge(&[Rest, Body], Rest.len(USER.len()), &USER[..14]), Err(15));
        // The beginning of a longer LOGIN is none.
        assert_eq!(judge(&[Rest, Body], 15, &USER[..7]), Err(8));
        assert_eq!(judge(&[Rest, Body], 15, &USER[..8]), Ok(Body));
    }

    #[test]
    fn the_order_decides_between_a_guest_and_a_short_user() {
        assert_eq!(judge(&[Rest, Body], 7, b""), Ok(Rest));
        assert_eq!(judge(&[Rest, Body], 7, SEVEN), Ok(Rest));
        assert_eq!(judge(&[Body, Rest], 7, SEVEN), Ok(Body));
        assert_eq!(judge(&[Body, Rest], 7, b""), Err(7));
        assert_eq!(judge(&[Body, Rest], 7, b"7 bytes"), Ok(Rest));
        assert_eq!(judge(&[Frame, Body], 7, SEVEN), Ok(Body), "it is no guest's here");
        assert_eq!(judge(&[Frame, Rest, Body], 11, b""), Ok(Frame));
        assert_eq!(judge(&[Body, Frame], 0, b""), Ok(Body));
    }

    #[test]
    fn a_frame_that_fits_none_is_read_by_the_mode_that_counts_least() {
        assert_eq!(judge(&[Rest, Body], 3, b""), Ok(Body));
        assert_eq!(judge(&[Rest, Frame], 3, b""), Ok(Rest));
        assert_eq!(judge(&[Frame, Rest, Body], 30, &[0xff; 30]), Ok(Body));
        assert_eq!(judge(&[Frame, Rest], 30, &[0xff; 30]), Ok(Rest));
        assert_eq!(judge(&[Frame, Rest, Body], u32::MAX, b""), Ok(Body), "above every limit");
        assert_eq!(judge(&[Frame, Body], 111, &[0; 50]), Err(100));
        assert_eq!(judge(&[Frame, Body], 112, &[0; 50]), Ok(Body));
        assert_eq!(judge_as(&[Rest, Body], 0x18, 22, USER), Ok(Body), "no known compression");
    }
}
