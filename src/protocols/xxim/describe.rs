//! What operators see of a connection.

use super::Conn;
use crate::engine::look::Notes;
use crate::protocols::xxim::wire::Identity;

impl Conn {
    /// What is known of the client, but for its token and its keys.
    pub(super) fn describe(&self, notes: &mut Notes) {
        let Identity { platform, device_id, app_version, language, ip, .. } =
            &**self.client.identity();
        let names = ["platform", "device", "app_version", "language", "client_address"];
        let values = [platform, device_id, app_version, language, ip];
        for (name, value) in names.into_iter().zip(values).filter(|(_, value)| !value.is_empty()) {
            notes.fact(name, value);
        }
        notes.fact("encrypted", self.client.cipher().is_some());
        notes.fact("requests_in_flight", self.in_flight.len());
        notes.reason_if(self.client.at_barrier(), "its login or its keys are being checked");
        notes.reason_if(self.waiting, "as many requests are under way as may be");
    }
}
