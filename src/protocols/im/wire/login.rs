//! The body of a LOGIN (section 9). The document names its two fields without their numbers, so
//! these are configured; what else is in it is skipped.

use bytes::Buf;
use prost::DecodeError;
use prost::encoding::{DecodeContext, decode_key, skip_field, string};

use super::proto::LoginRequest;

/// The field numbers of `token` and `userId` (`im.login_fields`); they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginFields {
    pub token: u32,
    pub user_id: u32,
}

impl Default for LoginFields {
    fn default() -> LoginFields {
        LoginFields { token: 1, user_id: 2 }
    }
}

impl LoginFields {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no protobuf message, or one of the two is no text: BAD_BODY.
    pub fn decode(self, mut body: &[u8]) -> Result<LoginRequest, DecodeError> {
        let mut login = LoginRequest::default();
        while body.has_remaining() {
            let (number, kind) = decode_key(&mut body)?;
            let context = DecodeContext::default();
            match number {
                n if n == self.token => string::merge(kind, &mut login.token, &mut body, context)?,
                n if n == self.user_id => {
                    string::merge(kind, &mut login.user_id, &mut body, context)?;
                }
                _ => skip_field(kind, number, &mut body, context)?,
            }
        }
        Ok(login)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use prost::encoding::string::encode;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_encoded_is_decoded_whatever_the_numbers(
            token in 1..1_u32 << 29,
            user_id in 1..1_u32 << 29,
            other in 1..1_u32 << 29,
            texts in any::<(String, String, String)>(),
        ) {
            prop_assume!(token != user_id && other != token && other != user_id);
            let mut body = Vec::new();
            encode(user_id, &texts.1, &mut body);
            encode(other, &texts.2, &mut body);
            encode(token, &texts.0, &mut body);
            let expected = LoginRequest { token: texts.0, user_id: texts.1 };
            let fields = LoginFields { token, user_id };
            prop_assert_eq!(fields.decode(&body), Ok(expected));
            prop_assert!(fields.decode(&body[..body.len() - 1]).is_err());
        }

        #[test]
        fn usual_numbers_are_read_as_prost_reads_them(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                prop::collection::vec(prop_oneof![0..4_u8, 8..20_u8, Just(0xc3)], 0..12),
            ],
        ) {
            let ours = LoginFields::default().decode(&body).ok();
            prop_assert_eq!(ours, LoginRequest::decode(&*body).ok());
        }
    }
}
