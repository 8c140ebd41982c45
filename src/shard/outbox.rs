//! What waits to be written to one connection: order, coalescing, accounting.
//!
//! Invariants: frames leave in the order in which they came; `bytes()` is what is queued plus what
//! a stalled send still holds. Costs: a connection with nothing to send owns no allocation, one
//! frame costs none either, several frames share one vector that leaves with them. Connections that
//! flush the same frames one after the other share one joined buffer ([`Joined`]).

use crate::limits::{COALESCE_BYTES_MAX, SEND_BYTES_MAX, SEND_FRAMES_MAX};
use crate::shard::ops::{Batch, Frame};

/// The outgoing side of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Queue,
    queued_bytes: u32,
    /// Bytes of the last send.
    taken_bytes: u32,
    stalled_bytes: u32,
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
        self.queued_bytes += frame.len() as u32;
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

    /// Bytes that wait, in the queue or in a stalled send.
    pub fn bytes(&self) -> u32 {
        self.queued_bytes + self.stalled_bytes
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

    /// Whether one more frame of so many bytes stays within `bytes_max`. An empty outbox takes a
    /// frame of any size, or a large payload could never be sent.
    pub fn has_room(&self, frame_bytes: usize, bytes_max: u32) -> bool {
        self.bytes() == 0 || self.bytes() as usize + frame_bytes <= bytes_max as usize
    }

    /// The last send could not be completed at once; `written` bytes of it are out.
    pub fn stall(&mut self, written: usize) {
        self.stalled_bytes = self.taken_bytes.saturating_sub(written as u32);
    }

    /// The stalled send is over.
    pub fn unstall(&mut self) {
        self.stalled_bytes = 0;
    }

    /// Throws away what is queued; returns how many data frames and bytes of them that were. See
    /// [`Outbox::take`] for `control_frames`.
    pub fn clear(&mut self, control_frames: bool) -> (u64, u64) {
        self.queued_bytes = 0;
        let frames = match std::mem::take(&mut self.queue) {
            Queue::Empty => return (0, 0),
            Queue::One(frame) => vec![frame],
            Queue::Many(frames) => frames,
        };
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
        self.taken_bytes = taken.batch.len() as u32;
        self.queued_bytes -= self.taken_bytes;
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
        assert_eq!(outbox.bytes() as usize, expected.len());
        let mut sent = Vec::new();
        while let Some(taken) = outbox.take(true, &mut Joined::default()) {
            assert!(taken.batch.len() <= SEND_BYTES_MAX);
            sent.extend(bytes_of(&taken.batch));
        }
        assert_eq!(sent, expected);
        assert_eq!(outbox.bytes(), 0);
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
            assert_eq!(outbox.bytes(), 0);
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
