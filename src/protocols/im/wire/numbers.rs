//! The numbers of commands and of statuses (sections 4 and 5). Both are configurable, for fleets
//! of clients that were built with others.

/// The command numbers of a gateway (`im.commands`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commands {
    pub reserved: u8,
    pub login: u8,
    pub logout: u8,
    pub ping: u8,
    pub pong: u8,
    pub join_cr: u8,
    pub leave_cr: u8,
    pub cms: u8,
    pub cr_notify: u8,
    pub kick: u8,
}

/// What a number in a frame from a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCommand {
    /// RESERVED, or a PONG: ignored.
    Nothing,
    Login,
    Logout,
    Ping,
    JoinCr,
    LeaveCr,
    Cms,
    /// No client may send it.
    Unknown,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands {
            reserved: 0,
            login: 1,
            logout: 2,
            ping: 3,
            pong: 4,
            join_cr: 5,
            leave_cr: 6,
            cms: 7,
            cr_notify: 8,
            kick: 9,
        }
    }
}

impl Commands {
    /// What clients send; these numbers differ from each other. A number that only the server
    /// sends may be one of them: CR_NOTIFY as CMS with flow 2 (section 4).
    pub fn requests(&self) -> [(&'static str, u8); 7] {
        [
            ("reserved", self.reserved),
            ("login", self.login),
            ("logout", self.logout),
            ("ping", self.ping),
            ("join_cr", self.join_cr),
            ("leave_cr", self.leave_cr),
            ("cms", self.cms),
        ]
    }

    /// What the number means in a frame from a client.
    pub fn request(&self, number: u8) -> ClientCommand {
        match number {
            n if n == self.login => ClientCommand::Login,
            n if n == self.logout => ClientCommand::Logout,
            n if n == self.ping => ClientCommand::Ping,
            n if n == self.join_cr => ClientCommand::JoinCr,
            n if n == self.leave_cr => ClientCommand::LeaveCr,
            n if n == self.cms => ClientCommand::Cms,
            n if n == self.reserved || n == self.pong => ClientCommand::Nothing,
            _ => ClientCommand::Unknown,
        }
    }
}

/// What a response says (section 5). The names are those of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    Ok,
    BadFrame,
    BadVersion,
    BadCompression,
    TooLarge,
    UnknownCommand,
    BadBody,
    BadFlow,
    AuthFailed,
    AlreadyLoggedIn,
    GuestForbidden,
    Kicked,
    RoomInvalid,
    RoomFull,
    RoomBanned,
    TooManyRooms,
    NotInRoom,
    Muted,
    RateLimited,
    Busy,
    Internal,
}

impl Status {
    /// Every status but OK, which is 0 in every dialect: name of the configuration key, number.
    pub const ALL: [(Status, &'static str, u8); 20] = [
        (Status::BadFrame, "bad_frame", 0x01),
        (Status::BadVersion, "bad_version", 0x02),
        (Status::BadCompression, "bad_compression", 0x03),
        (Status::TooLarge, "too_large", 0x04),
        (Status::UnknownCommand, "unknown_command", 0x05),
        (Status::BadBody, "bad_body", 0x06),
        (Status::BadFlow, "bad_flow", 0x07),
        (Status::AuthFailed, "auth_failed", 0x11),
        (Status::AlreadyLoggedIn, "already_logged_in", 0x12),
        (Status::GuestForbidden, "guest_forbidden", 0x13),
        (Status::Kicked, "kicked", 0x14),
        (Status::RoomInvalid, "room_invalid", 0x20),
        (Status::RoomFull, "room_full", 0x21),
        (Status::RoomBanned, "room_banned", 0x22),
        (Status::TooManyRooms, "too_many_rooms", 0x23),
        (Status::NotInRoom, "not_in_room", 0x24),
        (Status::Muted, "muted", 0x25),
        (Status::RateLimited, "rate_limited", 0x30),
        (Status::Busy, "busy", 0x31),
        (Status::Internal, "internal", 0x3F),
    ];

    /// Whether the protocol itself was broken, rather than a rule of the application (the group
    /// 0x01 to 0x0F).
    pub fn is_protocol(self) -> bool {
        (Status::BadFrame as u8..=Status::BadFlow as u8).contains(&(self as u8))
    }
}

/// The status numbers of a gateway (`im.statuses`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses([u8; Status::ALL.len() + 1]);

impl Default for Statuses {
    fn default() -> Statuses {
        let mut statuses = Statuses([0; Status::ALL.len() + 1]);
        Status::ALL.into_iter().for_each(|(status, _, number)| statuses.set(status, number));
        statuses
    }
}

impl Statuses {
    /// The number on the wire.
    pub fn number(&self, status: Status) -> u8 {
        self.0[status as usize]
    }

    /// Changes the number of a status. OK stays 0.
    pub fn set(&mut self, status: Status, number: u8) {
        if status != Status::Ok {
            self.0[status as usize] = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_but_ok_has_a_key_and_a_number_of_its_own() {
        let statuses = Statuses::default();
        assert_eq!(statuses.number(Status::Ok), 0);
        for (index, (status, name, number)) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, index + 1, "{name}");
            assert_eq!(statuses.number(status), number);
            let twin = Status::ALL[..index].iter().find(|row| row.1 == name || row.2 == number);
            assert!(twin.is_none() && number != 0, "{name}");
            assert_eq!(status.is_protocol(), number < 0x10, "{name}");
        }
    }

    #[test]
    fn numbers_of_requests_come_before_those_of_the_server() {
        let fleet = Commands { cr_notify: 7, ..Commands::default() };
        assert_eq!(fleet.request(7), ClientCommand::Cms);
        let known = [
            (0, ClientCommand::Nothing),
            (1, ClientCommand::Login),
            (2, ClientCommand::Logout),
            (3, ClientCommand::Ping),
            (4, ClientCommand::Nothing),
            (5, ClientCommand::JoinCr),
            (6, ClientCommand::LeaveCr),
            (7, ClientCommand::Cms),
        ];
        for (number, request) in known {
            assert_eq!(Commands::default().request(number), request);
        }
        assert!((8..=255).all(|n| Commands::default().request(n) == ClientCommand::Unknown));
    }
}
