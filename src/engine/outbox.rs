//! What waits to be written to one connection: order, coalescing, accounting.
//!
//! Invariants: frames leave in the order in which they came, but for pongs, see
//! [`Outbox::push_pong`]. `charge()` is what waits costs in memory: the bytes of the queued frames
//! and of a send that is stalled, and [`FRAME_CHARGE_BYTES`] for each frame; it is never less than
//! what they take (`memory()`). Costs: a connection with nothing to send owns no allocation, one
//! frame costs none either, several frames share one vector that leaves with them. Connections that
//! flush the same frames one after the other share one joined buffer ([`Joined`]).

use crate::engine::ops::{Batch, Frame};
use crate::limits::{
    COALESCE_BYTES_MAX, FRAME_CHARGE_BYTES, PONG_CHARGE_MAX, SEND_BYTES_MAX, SEND_FRAMES_MAX,
};

/// The outgoing side of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Queue,
    /// Charge of what is queued.
    queued: u32,
    /// Charge of the last send.
    taken: u32,
    /// The same while that send is stalled, else 0.
    stalled: u32,
    /// Which frame in the queue is the newest pong, counted from 1; 0: none is.
    pong: u32,
}

const _: () = assert!(size_of::<Outbox>() == 40);

/// What a frame of so many bytes costs while it waits.
pub fn charge(frame_bytes: usize) -> usize {
    frame_bytes + FRAME_CHARGE_BYTES
}

/// Whether one more frame of so many bytes stays within `bytes_max`, where `charged` is charged for
/// what waits already. A frame of any size may wait alone, or a large payload could never be sent.
pub fn has_room(charged: u32, frame_bytes: usize, bytes_max: u32) -> bool {
    charged == 0 || charged as usize + charge(frame_bytes) <= bytes_max as usize
}

#[derive(Debug, Default)]
enum Queue {
    #[default]
    Empty,
    One(Frame),
    Many(Vec<Frame>),
}

/// What one flush takes out.
#[derive(Debug)]
pub struct Taken {
    pub batch: Batch,
    /// Frames in the batch.
    pub frames: u32,
    /// Of these, frames that carry data (not WebSocket control frames).
    pub data_frames: u32,
    /// Bytes of the data frames.
    pub data_bytes: u64,
}

/// The last batch that was joined from frames which other connections have as well.
///
/// Several publishes to one topic in a turn give all its members the same frames: the bytes are put
/// together for the first of them, and the others get a count on the same buffer. It holds up to
/// [`COALESCE_BYTES_MAX`] and the frames behind them, until the end of the turn.
#[derive(Debug, Default)]
pub struct Joined {
    /// What was joined. They are kept, so that no other frame can be at the same address.
    frames: Vec<Frame>,
    control_frames: bool,
    last: Option<Shared>,
}

/// A [`Taken`] whose batch is one shared frame.
#[derive(Clone, Debug)]
struct Shared {
    batch: Frame,
    frames: u32,
    data_frames: u32,
    data_bytes: u64,
}

impl Outbox {
    /// Queues a frame behind the others.
    pub fn push(&mut self, frame: Frame) {
        self.queued = self.queued.saturating_add(charge(frame.len()) as u32);
        self.queue = match std::mem::take(&mut self.queue) {
            Queue::Empty => Queue::One(frame),
            Queue::One(first) => {
                let mut frames = Vec::with_capacity(8);
                frames.extend([first, frame]);
                Queue::Many(frames)
            }
            Queue::Many(mut frames) => {
                frames.push(frame);
                Queue::Many(frames)
            }
        };
    }

    /// Queues a pong. While a send is stalled, or [`PONG_CHARGE_MAX`] waits, only the newest one
    /// waits (RFC 6455 section 5.5.3): it takes the place of an older one that is queued. Returns
    /// how many frames are queued behind that place.
    pub fn push_pong(&mut self, pong: Frame) -> Option<usize> {
        let older = match &mut self.queue {
            _ if self.pong == 0 || (self.stalled == 0 && self.queued < PONG_CHARGE_MAX) => None,
            Queue::Empty => None,
            Queue::One(frame) => Some(frame),
            Queue::Many(frames) => frames.get_mut(self.pong as usize - 1),
        };
        let Some(older) = older else {
            self.push(pong);
            self.pong = self.frames() as u32;
            return None;
        };
        self.queued = self.queued - older.len() as u32 + pong.len() as u32;
        *older = pong;
        Some(self.frames() - self.pong as usize)
    }

    /// What is charged for that which waits, in the queue or in a stalled send. Such a send counts
    /// whole until it is over, because its frames stay in memory until then.
    pub fn charge(&self) -> u32 {
        self.queued.saturating_add(self.stalled)
    }

    /// For tests: bytes of memory that the queue takes, as far as they are nobody else's.
    pub fn memory(&self) -> usize {
        // `Rc` has two counts in front of what it holds.
        const SHARED: usize = 2 * size_of::<usize>() + size_of::<bytes::Bytes>();
        let own = |frame: &Frame| if frame.is_shared() { 0 } else { SHARED + frame.len() };
        match &self.queue {
            Queue::Empty => 0,
            Queue::One(frame) => own(frame),
            Queue::Many(frames) => {
                frames.capacity() * size_of::<Frame>() + frames.iter().map(own).sum::<usize>()
            }
        }
    }

    /// Frames in the queue.
    pub fn frames(&self) -> usize {
        match &self.queue {
            Queue::Empty => 0,
            Queue::One(_) => 1,
            Queue::Many(frames) => frames.len(),
        }
    }

    /// Whether nothing is queued. A stalled send may still be under way.
    pub fn is_empty(&self) -> bool {
        matches!(self.queue, Queue::Empty)
    }

    /// Whether one more frame of so many bytes stays within `bytes_max`; see [`has_room`].
    pub fn has_room(&self, frame_bytes: usize, bytes_max: u32) -> bool {
        has_room(self.charge(), frame_bytes, bytes_max)
    }

    /// The last send could not be completed at once.
    pub fn stall(&mut self) {
        self.stalled = self.taken;
    }

    /// The stalled send is over.
    pub fn unstall(&mut self) {
        self.stalled = 0;
    }

    /// Throws away what is queued; returns how many data frames and bytes of them that were. See
    /// [`Outbox::take`] for `control_frames`. The answer to a handshake stays: without it what
    /// follows, if only a close frame, means nothing.
    pub fn clear(&mut self, control_frames: bool) -> (u64, u64) {
        self.queued = 0;
        self.pong = 0;
        let mut frames = match std::mem::take(&mut self.queue) {
            Queue::Empty => return (0, 0),
            Queue::One(frame) => vec![frame],
            Queue::Many(frames) => frames,
        };
        if control_frames && frames[0].starts_with(b"HTTP/") {
            self.push(frames.remove(0));
        }
        let given_up = Taken::of(&frames, control_frames);
        (given_up.data_frames as u64, given_up.data_bytes)
    }

    /// Takes what goes out in one send: everything, up to the limits of a send. Small frames are
    /// copied into one buffer, which is cheaper for the kernel than many iovecs. With
    /// `control_frames`, frames that look like control frames of a WebSocket are no data.
    pub fn take(&mut self, control_frames: bool, joined: &mut Joined) -> Option<Taken> {
        let taken = match std::mem::take(&mut self.queue) {
            Queue::Empty => return None,
            Queue::One(frame) => {
                let mut taken = Taken::of(std::slice::from_ref(&frame), control_frames);
                taken.batch = Batch::One(frame);
                taken
            }
            Queue::Many(frames) => match joined.find(&frames, control_frames) {
                Some(taken) => taken,
                None => self.take_many(frames, control_frames, joined),
            },
        };
        let bytes = taken.batch.len();
        let frames = |count: usize| (bytes + count * FRAME_CHARGE_BYTES) as u32;
        self.queued = self.queued.saturating_sub(frames(taken.frames as usize));
        self.pong = self.pong.saturating_sub(taken.frames);
        // What was joined is one frame from here on.
        self.taken = match &taken.batch {
            Batch::Many(many) => frames(many.len()),
            Batch::One(_) | Batch::Own(_) => frames(1),
        };
        Some(taken)
    }

    fn take_many(
        &mut self,
        mut frames: Vec<Frame>,
        control_frames: bool,
        joined: &mut Joined,
    ) -> Taken {
        let mut bytes = 0;
        let fits = |frame: &&Frame| {
            bytes += frame.len();
            bytes <= SEND_BYTES_MAX
        };
        let count = frames.iter().take(SEND_FRAMES_MAX).take_while(fits).count().max(1);
        if count < frames.len() {
            let rest = frames.split_off(count);
            self.queue = Queue::Many(rest);
        }
        let total: usize = frames.iter().map(|frame| frame.len()).sum();
        let mut taken = Taken::of(&frames, control_frames);
        taken.batch = if total > COALESCE_BYTES_MAX {
            Batch::Many(frames)
        } else {
            let mut bytes = Vec::with_capacity(total);
            frames.iter().for_each(|frame| bytes.extend_from_slice(frame));
            // What nobody else has can not be asked for again.
            match frames.iter().all(Frame::is_shared) {
                true => Batch::One(joined.keep(frames, control_frames, &taken, bytes)),
                false => Batch::Own(bytes),
            }
        };
        taken
    }
}

impl Joined {
    /// Forgets the frames; at the end of a turn, so that nothing is held longer than it is needed.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.last = None;
    }

    /// The batch of exactly these frames, if it is the last that was joined.
    fn find(&self, frames: &[Frame], control_frames: bool) -> Option<Taken> {
        let last = self.last.as_ref()?;
        let same = frames.len() == self.frames.len()
            && control_frames == self.control_frames
            && frames.iter().zip(&self.frames).all(|(one, other)| one.is(other));
        let Shared { batch, frames, data_frames, data_bytes } = same.then(|| last.clone())?;
        Some(Taken { batch: Batch::One(batch), frames, data_frames, data_bytes })
    }

    fn keep(
        &mut self,
        frames: Vec<Frame>,
        control_frames: bool,
        taken: &Taken,
        bytes: Vec<u8>,
    ) -> Frame {
        let &Taken { frames: count, data_frames, data_bytes, .. } = taken;
        let batch = Frame::new(bytes.into());
        *self = Joined {
            frames,
            control_frames,
            last: Some(Shared { batch: batch.clone(), frames: count, data_frames, data_bytes }),
        };
        batch
    }
}

impl Taken {
    /// What the frames are; the batch is still empty.
    fn of(frames: &[Frame], control_frames: bool) -> Taken {
        let batch = Batch::Own(Vec::new());
        let mut taken = Taken { batch, frames: frames.len() as u32, data_frames: 0, data_bytes: 0 };
        for frame in frames {
            // RFC 6455 section 5.5: control opcodes have the fourth bit set.
            if !control_frames || frame.first().is_some_and(|byte| byte & 0x08 == 0) {
                taken.data_frames += 1;
                taken.data_bytes += frame.len() as u64;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(byte: u8, len: usize) -> Frame {
        Frame::new(Bytes::from(vec![byte; len]))
    }

    fn bytes_of(batch: &Batch) -> Vec<u8> {
        match batch {
            Batch::One(frame) => frame.to_vec(),
            Batch::Many(frames) => frames.iter().flat_map(|frame| frame.to_vec()).collect(),
            Batch::Own(bytes) => bytes.clone(),
        }
    }

    #[test]
    fn frames_leave_in_order_and_every_byte_is_accounted_for() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for index in 0..5000usize {
            let frame = frame(index as u8, 1 + index % 300);
            expected.extend_from_slice(&frame);
            outbox.push(frame);
        }
        assert_eq!(outbox.charge() as usize, expected.len() + 5000 * FRAME_CHARGE_BYTES);
        assert!(outbox.memory() <= outbox.charge() as usize);
        let mut sent = Vec::new();
        while let Some(taken) = outbox.take(true, &mut Joined::default()) {
            assert!(taken.batch.len() <= SEND_BYTES_MAX);
            sent.extend(bytes_of(&taken.batch));
        }
        assert_eq!(sent, expected);
        assert_eq!(outbox.charge(), 0);
    }

    #[test]
    fn small_frames_are_joined_and_large_ones_are_gathered() {
        let mut outbox = Outbox::default();
        outbox.push(frame(0x81, 100));
        assert!(matches!(
            outbox.take(true, &mut Joined::default()),
            Some(Taken { batch: Batch::One(_), .. })
        ));
        outbox.push(frame(0x81, 100));
        outbox.push(frame(0x8a, 5));
        let taken = outbox.take(true, &mut Joined::default()).expect("two frames were pushed");
        assert!(matches!(taken.batch, Batch::Own(_)));
        assert_eq!((taken.frames, taken.data_frames, taken.data_bytes), (2, 1, 100));
        outbox.push(frame(0x82, COALESCE_BYTES_MAX));
        outbox.push(frame(0x82, 1));
        assert!(matches!(
            outbox.take(true, &mut Joined::default()),
            Some(Taken { batch: Batch::Many(_), .. })
        ));
        assert!(outbox.take(true, &mut Joined::default()).is_none());
    }

    #[test]
    fn connections_with_the_same_frames_share_one_buffer_and_others_do_not() {
        let frames: Vec<Frame> = (0..4).map(|byte| frame(byte, 100)).collect();
        let mut joined = Joined::default();
        let mut take = |numbers: &[usize], control_frames| {
            let mut outbox = Outbox::default();
            numbers.iter().for_each(|&number| outbox.push(frames[number].clone()));
            let taken = outbox.take(control_frames, &mut joined).expect("frames were pushed");
            assert_eq!(outbox.charge(), 0);
            let expected: Vec<u8> = numbers.iter().flat_map(|&n| frames[n].to_vec()).collect();
            assert_eq!(bytes_of(&taken.batch), expected);
            let Batch::One(batch) = taken.batch else { panic!("the frames are shared") };
            (batch, taken.frames, taken.data_frames, taken.data_bytes)
        };
        let (first, ..) = take(&[0, 1, 2], true);
        let (again, frames, data_frames, data_bytes) = take(&[0, 1, 2], true);
        assert!(again.is(&first));
        assert_eq!((frames, data_frames, data_bytes), (3, 3, 300));
        for other in [&[0, 1][..], &[0, 1, 3], &[1, 0, 2], &[0, 1, 2, 3]] {
            assert!(!take(other, true).0.is(&first));
        }
        // The same bytes count differently on a bare stream.
        take(&[0, 1, 2], true);
        assert!(!take(&[0, 1, 2], false).0.is(&first));
    }

    #[test]
    fn frames_of_one_connection_alone_are_not_kept() {
        let mut joined = Joined::default();
        let mut outbox = Outbox::default();
        (0..3).for_each(|byte| outbox.push(frame(byte, 10)));
        let taken = outbox.take(true, &mut joined).expect("frames were pushed");
        assert!(matches!(taken.batch, Batch::Own(_)));
        assert!(joined.frames.is_empty() && joined.last.is_none());
    }

    /// What is queued, as the first bytes of the frames.
    fn queued(outbox: &Outbox) -> Vec<u8> {
        match &outbox.queue {
            Queue::Empty => Vec::new(),
            Queue::One(frame) => vec![frame[1]],
            Queue::Many(frames) => frames.iter().map(|frame| frame[1]).collect(),
        }
    }

    fn pong(number: u8) -> Frame {
        Frame::new(Bytes::from(vec![0x8a, number, 0][..2 + usize::from(number) % 2].to_vec()))
    }

    #[test]
    fn only_the_newest_pong_waits_behind_a_stalled_send() {
        let mut outbox = Outbox::default();
        let mut joined = Joined::default();
        // Nothing is stalled: each ping is answered.
        assert_eq!((1..4).find_map(|number| outbox.push_pong(pong(number))), None);
        assert_eq!(queued(&outbox), [1, 2, 3]);
        outbox.take(true, &mut joined).expect("pongs were pushed");
        outbox.stall();
        let stalled = outbox.charge();
        outbox.push(frame(10, 2));
        assert_eq!(outbox.push_pong(pong(4)), None);
        outbox.push(frame(11, 2));
        outbox.push(frame(12, 2));
        for number in 5..100 {
            assert_eq!(outbox.push_pong(pong(number)), Some(2));
        }
        assert_eq!(queued(&outbox), [10, 99, 11, 12]);
        assert_eq!(outbox.charge() as usize, stalled as usize + 9 + 4 * FRAME_CHARGE_BYTES);
        outbox.unstall();
        outbox.take(true, &mut joined).expect("frames were pushed");
        outbox.stall();
        assert_eq!(outbox.push_pong(pong(100)), None, "the older one is on its way");
        assert_eq!(outbox.push_pong(pong(101)), Some(0));
        assert_eq!(outbox.clear(true), (0, 0));
        assert_eq!(outbox.push_pong(pong(102)), None, "the older one was given up");
    }

    #[test]
    fn only_the_newest_pong_waits_behind_much_else() {
        let mut outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.push_pong(pong(1));
        }
        assert!(outbox.charge() < PONG_CHARGE_MAX + charge(125) as u32, "{}", outbox.charge());
        outbox.push_pong(pong(3));
        assert_eq!(queued(&outbox).last(), Some(&3));
        // What is pushed for another reason has a place of its own.
        outbox.push(frame(10, 2));
        assert_eq!(outbox.push_pong(pong(5)), Some(1));
    }

    #[test]
    fn a_pong_is_found_behind_what_a_send_left() {
        let mut outbox = Outbox::default();
        (0..SEND_FRAMES_MAX + 5).for_each(|_| outbox.push(frame(7, 2)));
        assert_eq!(outbox.push_pong(pong(1)), None);
        outbox.push(frame(8, 2));
        outbox.take(true, &mut Joined::default()).expect("frames were pushed");
        outbox.stall();
        assert_eq!(outbox.push_pong(pong(2)), Some(1));
        assert_eq!(queued(&outbox), [7, 7, 7, 7, 7, 2, 8]);
    }

    #[test]
    fn what_is_charged_covers_the_memory_of_small_frames_that_nobody_shares() {
        for count in 0..300 {
            let mut outbox = Outbox::default();
            (0..count).for_each(|_| outbox.push(frame(0x8a, 2)));
            assert!(outbox.memory() <= outbox.charge() as usize, "{count} frames");
            // An allocator hands out at least 16 bytes for the two.
            assert!(outbox.memory() + 14 * count <= outbox.charge() as usize, "{count} frames");
        }
    }

    #[test]
    fn a_frame_larger_than_one_send_goes_out_alone() {
        let mut outbox = Outbox::default();
        outbox.push(frame(2, SEND_BYTES_MAX + 1));
        outbox.push(frame(2, 1));
        assert_eq!(
            outbox.take(true, &mut Joined::default()).map(|taken| taken.batch.len()),
            Some(SEND_BYTES_MAX + 1)
        );
        assert_eq!(
            outbox.take(true, &mut Joined::default()).map(|taken| taken.batch.len()),
            Some(1)
        );
    }
}
