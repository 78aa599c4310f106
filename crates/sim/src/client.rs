//! A client: asks one thing at a time, asks again until it is answered, remembers every answer, and in the end reads
//! everything back.

use crate::check::Broken;
use crate::check::linear::{Effect, History, Object, Operation};
use crate::machines::frames::Reply;
use crate::plan::MS;
use crate::random::Random;
use crate::service::{Answer, Op, read, request};
use crate::world::{Happening, World};

/// Blocks are written by clients with values that nobody else writes: client and number.
const VALUE_SHIFT: u32 = 32;
/// A client that has no answer asks again after this.
const ASK_AGAIN_NS: u64 = 40 * MS;

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    /// What it asked, by number from 1 on, and the first answer.
    asked: Vec<(Op, Option<Answer>)>,
    /// When the newest was asked; `None` once it is answered.
    pub(crate) waits_since_ns: Option<u64>,
    /// Blocks that are still to be read back, then the count.
    last_round: Option<u64>,
    pub(crate) done: bool,
    pub(crate) answers: u64,
    /// The longest that an answer has taken.
    pub(crate) longest_ns: u64,
    pub(crate) random: Random,
}

impl Client {
    pub(crate) fn new(id: u64, random: Random) -> Self {
        Self {
            id,
            asked: Vec::new(),
            waits_since_ns: None,
            last_round: None,
            done: false,
            answers: 0,
            longest_ns: 0,
            random,
        }
    }

    /// The number of the newest question.
    pub(crate) fn seq(&self) -> u64 {
        self.asked.len() as u64
    }

    /// The newest question.
    pub(crate) fn op(&self) -> Option<Op> {
        self.asked.last().map(|(op, _)| *op)
    }

    /// Whether that question was to read a block.
    pub(crate) fn is_block(&self, seq: u64) -> bool {
        let index = (seq as usize).wrapping_sub(1);
        matches!(self.asked.get(index), Some((Op::Read { .. }, _)))
    }

    /// Thinks of the next question; `None` when it has asked the last. `last`: the last round has come.
    pub(crate) fn ask(&mut self, now_ns: u64, keys: u64, last: bool) -> Option<Op> {
        let op = if last {
            let round = self.last_round.map_or(0, |round| round + 1);
            self.last_round = Some(round);
            match round {
                key if key < keys => Op::Read { key },
                key if key == keys => Op::Total,
                _ => {
                    self.done = true;
                    return None;
                }
            }
        } else {
            let key = self.random.below(keys);
            match self.random.below(10) {
                0..4 => Op::Write { key, value: self.id << VALUE_SHIFT | (self.seq() + 1) },
                4..7 => Op::Read { key },
                7 => Op::Add,
                8 => Op::Total,
                _ => Op::Other,
            }
        };
        self.asked.push((op, None));
        self.waits_since_ns = Some(now_ns);
        Some(op)
    }

    /// Hears an answer. True: the newest question is answered, for the first time.
    pub(crate) fn hear(&mut self, now_ns: u64, reply: Reply, history: &mut History) -> Result<bool, Broken> {
        const NAME: &str = "no answer is contradicted";
        let (seq, newest) = (reply.seq, self.seq());
        let Some((op, answer)) = (seq as usize).checked_sub(1).and_then(|index| self.asked.get_mut(index))
        else {
            return Err(Broken(NAME, format!("client {} is answered what it never asked: {seq}", self.id)));
        };
        match answer {
            Some(first) if *first == reply.answer => return Ok(false),
            Some(first) => {
                let what = format!(
                    "client {} was answered {first:?}, then {:?}, to its question {seq}, {op:?}",
                    self.id, reply.answer
                );
                return Err(Broken(NAME, what));
            }
            None => *answer = Some(reply.answer),
        }
        self.answers += 1;
        let op = *op;
        let asked_ns = if seq == newest { self.waits_since_ns.take() } else { None };
        let Some(asked_ns) = asked_ns else { return Ok(false) };
        self.longest_ns = self.longest_ns.max(now_ns - asked_ns);
        note(history, op, asked_ns, Some((now_ns, reply.answer)));
        Ok(true)
    }

    /// The VM has ended, and what was not answered may have happened: the client asks something else of the next.
    pub(crate) fn give_up(&mut self, history: &mut History) {
        self.finish(history);
        self.waits_since_ns = None;
    }

    /// The run ends: what was not answered may have happened.
    pub(crate) fn finish(&self, history: &mut History) {
        if let (Some(asked_ns), Some(op)) = (self.waits_since_ns, self.op()) {
            note(history, op, asked_ns, None);
        }
    }
}

/// Puts an operation into the history. A disk that failed says nothing of what is on it now.
fn note(history: &mut History, op: Op, invoked_ns: u64, answer: Option<(u64, Answer)>) {
    let (object, effect) = match op {
        Op::Write { key, value } => (Object::Block(key), Effect::Write(value)),
        Op::Read { key } => (Object::Block(key), Effect::Read),
        Op::Add => (Object::Counter(history.vm_run), Effect::Add),
        Op::Total => (Object::Counter(history.vm_run), Effect::Read),
        Op::Other => return,
    };
    let returned = match answer {
        Some((at, Answer::Done)) => Some((at, 0)),
        Some((at, Answer::Value(value))) => Some((at, value)),
        Some((_, Answer::Bad)) | None => None,
    };
    if returned.is_some() || effect != Effect::Read {
        history.push(object, Operation { effect, invoked_ns, returned });
    }
}

impl World {
    /// A client asks its next question, or question `seq` again if that is not answered.
    pub(crate) fn client_acts(&mut self, index: usize, seq: u64) {
        let last = self.now > self.last_round_ns();
        let (now, keys) = (self.now, self.plan.keys);
        let client = &mut self.clients[index];
        let again = client.waits_since_ns.is_some();
        if seq != client.seq() || client.done {
            return;
        }
        let op = if again { client.op() } else { client.ask(now, keys, last) };
        let Some(op) = op else { return };
        let (id, seq) = (client.id, client.seq());
        let wait = ASK_AGAIN_NS + client.random.below(ASK_AGAIN_NS / 4);
        if !again {
            self.timeline.say(now, "clients", format_args!("{id} asks {seq}: {op:?}"));
        }
        let frame = request(self.plan.machine, id, seq, op);
        for port in self.net.ports(again) {
            for arrival in self.net.arrivals(now, port) {
                self.schedule(arrival, Happening::ToGuest(port, frame.clone()));
            }
        }
        self.schedule(now + wait, Happening::Client(index, seq));
    }

    /// A frame has arrived at the clients.
    pub(crate) fn clients_hear(&mut self, frame: &[u8]) -> Result<(), Broken> {
        let clients = &self.clients;
        let of = |id: u64| clients.get((id as usize).wrapping_sub(1));
        let is_block = |id, seq| of(id).is_some_and(|client| client.is_block(seq));
        let Some(reply) = read(self.plan.machine, frame, is_block) else { return Ok(()) };
        let index = (reply.client as usize).wrapping_sub(1);
        let (now, think_ns) = (self.now, self.plan.think_ns);
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        if client.hear(now, reply, &mut self.checks.history)? {
            let (id, seq) = (client.id, client.seq());
            let pause = client.random.below(think_ns);
            self.timeline.say(now, "clients", format_args!("{id} hears {seq}: {:?}", reply.answer));
            self.schedule(now + pause, Happening::Client(index, seq));
        }
        Ok(())
    }
}
