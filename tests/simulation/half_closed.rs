//! Peers that end their side right behind their last bytes: what came whole before was carried
//! out, and its answer written.

use ringway::sim::Peer;
use ringway::wire::worker::proto::Cmd;

use crate::peers::{Business, Kind, REFUSED};
use crate::plan::WORKERS;
use crate::scenes::Scene;
use crate::streams::{Event, Frame, Told};

/// What one seed tells.
struct Story {
    scene: Scene,
    rng: fastrand::Rng,
    peers: Vec<Peer>,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shards = rng.usize(1..4);
        let scene = Scene::seeded(seed, shards, |config, weather| {
            config.netsvr.worker.queue_frames_max = [4, 1000][rng.usize(..2)];
            weather.mailbox_messages_max = rng.usize(2..100);
            weather.socket_bytes_max = rng.usize(200..20_000);
            weather.piece_bytes_max = rng.usize(1..3000);
            weather.answer_piece = rng.usize(1..50);
        });
        Story { scene, rng, peers: Vec::new() }
    }

    /// A client whose request, frames and end come at once, or nearly.
    fn client(&mut self, kind: Kind, payload: Option<&[u8]>, closes: bool) -> Peer {
        let peer = self.scene.client(kind);
        self.pause();
        if let Some(payload) = payload {
            self.scene.send(peer, 0x82, payload);
            self.pause();
        }
        if closes {
            self.scene.send(peer, 0x88, &[3, 232]);
        }
        self.scene.world.end(peer);
        self.peers.push(peer);
        peer
    }

    /// A backend that asks so often, perhaps with the beginning of one more frame, or a bad one.
    fn backend(&mut self, questions: usize) -> Business {
        let mut backend = Business::new(self.scene.world.connect(WORKERS), 1);
        (0..questions).for_each(|_| backend.command(Cmd::UniqIdList, &()));
        let mut bytes = backend.pending.take_all();
        bytes.extend([&[][..], &[0, 0, 0], &[0xff; 8]][self.rng.usize(..3)]);
        self.scene.world.write(backend.peer, &bytes);
        self.pause();
        self.scene.world.end(backend.peer);
        self.peers.push(backend.peer);
        backend
    }

    fn pause(&mut self) {
        for _ in 0..[0, 0, 0, 20][self.rng.usize(..4)] {
            self.scene.world.step();
        }
    }

    /// Everybody reads, at a pace of their own, until all is told.
    fn run(&mut self, worker: Peer) {
        for _ in 0..4000 {
            self.scene.world.step();
            if self.rng.bool() {
                let peers = self.peers.iter().chain([&worker]);
                peers.for_each(|peer| _ = self.scene.world.read(*peer, 5000));
            }
        }
    }
}

fn tell(seed: u64) -> u64 {
    let mut story = Story::new(seed);
    let worker = story.scene.worker();
    let count = story.rng.usize(1..6);
    let (mut clients, mut echoes, mut pages, mut backends) = (vec![], vec![], vec![], vec![]);
    for number in 0..count {
        let text = format!("message {number}");
        let closes = story.rng.bool();
        clients.push(story.client(Kind::Netsvr, Some(text.as_bytes()), closes));
        echoes.push((story.client(Kind::Echo, Some(text.as_bytes()), closes), closes));
        let row = story.rng.usize(..REFUSED.len());
        pages.push((story.client(Kind::Refused(row), None, false), row));
        let questions = story.rng.usize(1..120);
        backends.push((story.backend(questions), questions));
    }
    story.run(worker.peer);
    let scene = &story.scene;
    let mut heard: Vec<String> = scene.told(&worker).into_iter().filter_map(message).collect();
    heard.sort();
    let said: Vec<String> = (0..count).map(|number| format!("message {number}")).collect();
    assert_eq!(heard, said, "seed {seed}: messages of clients that left");
    for (number, (echo, closes)) in echoes.into_iter().enumerate() {
        let mut expected =
            vec![Frame::Data { text: false, payload: said[number].clone().into_bytes() }];
        expected.extend(closes.then(|| Frame::Close(vec![3, 232])));
        assert_eq!(scene.frames(echo), expected, "seed {seed}: echo {number}");
    }
    for (page, row) in pages {
        let written = String::from_utf8_lossy(&scene.world.socket(page).written).into_owned();
        assert!(written.ends_with(REFUSED[row].1), "seed {seed}: {written:?}");
    }
    for (backend, questions) in backends {
        assert_eq!(scene.told(&backend).len(), questions, "seed {seed}: answers");
    }
    for peer in &story.peers {
        assert!(scene.world.socket(*peer).closed, "seed {seed}: a connection is left");
    }
    scene.world.digest()
}

fn message(told: Told) -> Option<String> {
    match told {
        Told::Event { event: Event::Transfer { data, .. }, .. } => {
            Some(String::from_utf8_lossy(&data).into_owned())
        }
        _ => None,
    }
}

#[test]
fn what_came_whole_before_an_orderly_end_is_carried_out_and_answered() {
    (0..400).for_each(|seed| _ = tell(seed));
}

#[test]
fn digests() {
    crate::digests::check("half_closed", tell);
}
