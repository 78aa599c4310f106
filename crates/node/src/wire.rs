//! Between the protocol's messages and the wire's: the same facts, in the types that either side owns. Here, and not in
//! a port, because every port that carries bytes says the same.

use pollux_codec::message::{AckV1, Wire};
use pollux_protocol::{GoodbyeReason, Message};

/// The wire form of a message.
#[must_use]
pub fn to_wire(message: Message) -> Wire {
    match message {
        Message::Records { generation, released, records } => Wire::Records { generation, released, records },
        Message::Ack { generation, received, executed, icount, time, buffered_bytes } => {
            Wire::Ack(AckV1 { generation, received, executed, icount, time, buffered_bytes })
        }
        Message::Heartbeat { generation } => Wire::Heartbeat { generation },
        Message::Handover { generation, last } => Wire::Handover { generation, last },
        Message::Network { generation, reached } => Wire::Network { generation, reached },
        Message::Goodbye { generation, reason } => {
            let reason = match reason {
                GoodbyeReason::Ended => 0,
                GoodbyeReason::Leaving => 1,
                GoodbyeReason::Diverged => 2,
            };
            Wire::Goodbye { generation, reason }
        }
    }
}

/// The message in its wire form; `None` if it belongs to the handshake or to nothing.
#[must_use]
pub fn from_wire(wire: Wire) -> Option<Message> {
    Some(match wire {
        Wire::Records { generation, released, records } => Message::Records { generation, released, records },
        Wire::Ack(AckV1 { generation, received, executed, icount, time, buffered_bytes }) => {
            Message::Ack { generation, received, executed, icount, time, buffered_bytes }
        }
        Wire::Heartbeat { generation } => Message::Heartbeat { generation },
        Wire::Handover { generation, last } => Message::Handover { generation, last },
        Wire::Network { generation, reached } => Message::Network { generation, reached },
        Wire::Goodbye { generation, reason } => {
            let reason = match reason {
                0 => GoodbyeReason::Ended,
                1 => GoodbyeReason::Leaving,
                2 => GoodbyeReason::Diverged,
                _ => return None,
            };
            Message::Goodbye { generation, reason }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use pollux_vocab::{Generation, Icount, Lsn, VirtTime};

    #[test]
    fn every_message_survives_the_wire() {
        let generation = Generation(2);
        let goodbye = |reason| Message::Goodbye { generation, reason };
        let messages = [
            Message::Records { generation, released: Lsn(1), records: vec![] },
            Message::Ack {
                generation,
                received: Lsn(5),
                executed: Lsn(4),
                icount: Icount(3),
                time: VirtTime(2),
                buffered_bytes: 1,
            },
            Message::Heartbeat { generation },
            Message::Handover { generation, last: Lsn(7) },
            Message::Network { generation, reached: true },
            Message::Network { generation, reached: false },
            goodbye(GoodbyeReason::Ended),
            goodbye(GoodbyeReason::Leaving),
            goodbye(GoodbyeReason::Diverged),
        ];
        for message in messages {
            assert_eq!(from_wire(to_wire(message.clone())), Some(message));
        }
        assert_eq!(from_wire(Wire::Goodbye { generation, reason: 9 }), None);
        assert_eq!(from_wire(Wire::Welcome), None);
    }
}
