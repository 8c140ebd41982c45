//! The `Date` of answers (RFC 9110 sections 5.6.7 and 6.6.1). Time is an argument.
//!
//! Costs: the text is made once a second at most, whoever asks; no allocation.

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const DAY_S: u64 = 86_400;
/// Years have four digits.
const UNIX_MAX: u64 = 253_402_300_799;

/// A moment as `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Seconds since 1970.
    unix: u64,
    text: [u8; 29],
}

impl Date {
    /// This many seconds after the beginning of 1970; what is behind the year 9999 is its end.
    pub fn new(unix: u64) -> Date {
        Date { unix, text: text(unix.min(UNIX_MAX)) }
    }

    /// The same moment if it is still that second, else the one that is given.
    pub fn at(&mut self, unix: u64) -> Date {
        if self.unix != unix {
            *self = Date::new(unix);
        }
        *self
    }

    /// As it stands in an answer.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

impl Default for Date {
    fn default() -> Date {
        Date::new(0)
    }
}

fn text(unix: u64) -> [u8; 29] {
    let days = unix / DAY_S;
    let (year, month, day) = civil(days);
    let second = unix % DAY_S;
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    two_digits(&mut text[5..7], day);
    text[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
    two_digits(&mut text[12..14], year / 100);
    two_digits(&mut text[14..16], year % 100);
    two_digits(&mut text[17..19], second / 3600);
    two_digits(&mut text[20..22], second / 60 % 60);
    two_digits(&mut text[23..25], second % 60);
    text
}

/// Year, month and day of the month that the day has which is so many days behind 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    let mut rest = days;
    // Whole cycles of the calendar first, so that a late year costs no more than an early one.
    year += rest / 146_097 * 400;
    rest %= 146_097;
    while rest >= year_days(year) {
        rest -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn two_digits(out: &mut [u8], number: u64) {
    out[0] = b'0' + (number / 10 % 10) as u8;
    out[1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(Date::new(784_111_777).text(), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn every_day_for_centuries_is_that_of_another_library() {
        for day in 0..200_000 {
            let unix = day * DAY_S + day * 7919 % DAY_S;
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix));
            assert_eq!(Date::new(unix).text(), expected.as_bytes(), "{unix}");
        }
        assert_eq!(Date::new(u64::MAX).text(), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn it_follows_the_time_forth_and_back() {
        let mut date = Date::default();
        for unix in [0, 5, 5, 4, 900] {
            assert_eq!(date.at(unix), Date::new(unix));
        }
    }
}
