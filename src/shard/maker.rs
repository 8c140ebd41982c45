//! Who makes a push in which form.

use crate::config::all::Config;
use crate::engine::forms::{Forms, Made};
use crate::hub::push::Payload;
use crate::lists::numbers::*;
use crate::protocols::connmix;
use crate::protocols::im;
use crate::protocols::im::wire::Gzip;
use crate::protocols::netsvr;
use crate::protocols::xxim;
use crate::wire::deflate::Deflater;

const IM_LAST: u8 = IM + im::FORMS - 1;

/// Makes what a payload is in each form.
pub(super) struct Maker<'a> {
    pub payload: &'a Payload,
    pub config: &'a Config,
    pub deflater: Option<&'a mut Deflater>,
    pub gzip: &'a mut Gzip,
    pub unix_ms: u64,
    /// What the forms of IM have in common.
    pub im: Option<im::Fan<'a>>,
}

impl Maker<'_> {
    /// What the payload is in this form.
    pub fn make(&mut self, form: u8) -> Made {
        let payload = self.payload;
        let customer = &self.config.netsvr.customer;
        match form {
            NETSVR_PLAIN => Made::Frame(netsvr::push::plain(payload, customer)),
            NETSVR_DEFLATE => {
                let deflater = self.deflater.as_deref_mut();
                Made::Frame(netsvr::push::deflated(payload, customer, deflater))
            }
            XXIM_WEBSOCKET..=XXIM_SEALED => xxim::make(form, payload),
            CONNMIX_MESSAGE..=CONNMIX_LENGTH => connmix::make(form, payload),
            IM..=IM_LAST => {
                im::make(form - IM, payload, &self.config.im, self.gzip, self.unix_ms, &mut self.im)
            }
            _ => Made::Nothing,
        }
    }
}

/// How many clients of xxim were sent a payload that clients with common settings refuse.
pub fn large(forms: &Forms, payload: &Payload) -> u64 {
    let xxim = |form: u8| (XXIM_WEBSOCKET..=XXIM_SEALED).contains(&form);
    let count = forms.iter().filter(|form| xxim(form.form)).map(|form| form.count).sum();
    if count > 0 && xxim::is_large(payload) { count } else { 0 }
}
