//! The requests of one connection that wait for their upstream: each is answered once (section
//! 4.6).
//!
//! Invariants: a number that was answered or forgotten is not used again before 2^24 others, so a
//! late answer finds nothing. Costs: one entry per request, reused; a connection without requests
//! under way owns no memory.

use bytes::Bytes;

/// Requests that one connection may have under way at the most, whatever the configuration says.
pub const IN_FLIGHT_MAX: usize = 256;

/// The heads of the responses that are owed, by number.
#[derive(Debug, Default)]
pub struct InFlight {
    /// `None`: the place is free.
    places: Vec<(u32, Option<Bytes>)>,
    free: Vec<u8>,
    serial: u32,
}

impl InFlight {
    /// Requests under way.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of what is owed.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.places.iter().filter(|(_, head)| head.is_some()).map(|(number, _)| *number)
    }

    /// Keeps the head of a response until it is known. `None`: there are too many.
    pub fn begin(&mut self, head: Bytes) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => usize::from(place),
            None if self.places.len() < IN_FLIGHT_MAX => {
                self.places.push((0, None));
                self.places.len() - 1
            }
            None => return None,
        };
        self.serial = self.serial.wrapping_add(1);
        let number = self.serial << 8 | place as u32;
        self.places[place] = (number, Some(head));
        Some(number)
    }

    /// Takes what a response needs; `None`: it was taken before, or never kept.
    pub fn end(&mut self, number: u32) -> Option<Bytes> {
        let place = number as u8;
        let (owner, head) = self.places.get_mut(usize::from(place))?;
        if *owner != number {
            return None;
        }
        let head = head.take()?;
        self.free.push(place);
        if self.is_empty() {
            self.places = Vec::new();
            self.free = Vec::new();
        }
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_answered_once() {
        let mut requests = InFlight::default();
        let numbers: Vec<u32> = (0..IN_FLIGHT_MAX)
            .map(|n| requests.begin(Bytes::from(n.to_string())).expect("there is room"))
            .collect();
        assert_eq!(requests.begin(Bytes::new()), None);
        assert_eq!(requests.numbers().collect::<Vec<_>>(), numbers);
        for (n, number) in numbers.iter().enumerate().rev() {
            assert_eq!(requests.end(*number), Some(Bytes::from(n.to_string())));
            assert_eq!(requests.end(*number), None);
        }
        assert!(requests.is_empty() && requests.places.capacity() == 0);
        let next = requests.begin(Bytes::new()).expect("there is room");
        assert!(!numbers.contains(&next));
        assert_eq!(requests.end(numbers[0]), None);
        assert_eq!(requests.len(), 1);
    }
}
