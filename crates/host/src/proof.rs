//! Proofs that a peer knows the secret of a claim: who reads the same arbiter, and nobody else, can give them.
//!
//! Invariant: a proof is good for one connection (both sides put a nonce into it), for one direction (which side proves
//! is in it), and for one VM, generation, arbiter and holder (the whole Greet is). The secret itself never travels.
//!
//! Not here: encryption; whoever stands on the path between two proven hosts is not kept out by this.

use hmac::{Hmac, Mac};
use pollux_arbiter::Secret;
use pollux_codec::message::{Greet, Wire};
use sha2::Sha256;

/// What is proved begins like this, so that a proof for anything else is none.
const CONTEXT: &[u8] = b"pollux pairing 1";

/// Which side proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one that waits.
    Backup = 0,
    /// The one that asks.
    Primary = 1,
}

/// The proof of `side` that it knows `secret`.
#[must_use]
pub fn prove(secret: &Secret, side: Side, greet: &Greet, nonce: &[u8; 32]) -> [u8; 32] {
    mac(secret, side, greet, nonce).finalize().into_bytes().into()
}

/// Whether `proof` is one. Takes the same time whatever is wrong with it.
#[must_use]
pub fn is_proof(secret: &Secret, side: Side, greet: &Greet, nonce: &[u8; 32], proof: &[u8; 32]) -> bool {
    mac(secret, side, greet, nonce).verify_slice(proof).is_ok()
}

fn mac(secret: &Secret, side: Side, greet: &Greet, nonce: &[u8; 32]) -> Hmac<Sha256> {
    // HMAC-SHA256 pads a key of at most 64 bytes with zeros: as long as a block, every key is one.
    let mut key = [0; 64];
    key[..32].copy_from_slice(&secret.0);
    let mut mac = <Hmac<Sha256> as Mac>::new(&key.into());
    mac.update(CONTEXT);
    mac.update(&[side as u8]);
    mac.update(&Wire::Greet(greet.clone()).encode());
    mac.update(nonce);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use pollux_vocab::Generation;

    #[test]
    fn a_proof_holds_for_one_secret_one_side_one_greeting_and_one_nonce() {
        let greet = Greet {
            vm: "vm".into(),
            generation: Generation(2),
            arbiter: [3; 16],
            holder: "a".into(),
            nonce: [4; 32],
        };
        let (secret, nonce) = (Secret([5; 32]), [6; 32]);
        let proof = prove(&secret, Side::Primary, &greet, &nonce);
        assert!(is_proof(&secret, Side::Primary, &greet, &nonce, &proof));
        assert!(!is_proof(&Secret([0; 32]), Side::Primary, &greet, &nonce, &proof));
        assert!(!is_proof(&secret, Side::Backup, &greet, &nonce, &proof), "nor sent back");
        assert!(!is_proof(&secret, Side::Primary, &greet, &[7; 32], &proof), "nor repeated");
        for other in [
            Greet { vm: "other".into(), ..greet.clone() },
            Greet { generation: Generation(3), ..greet.clone() },
            Greet { arbiter: [0; 16], ..greet.clone() },
            Greet { holder: "b".into(), ..greet.clone() },
            Greet { nonce: [0; 32], ..greet.clone() },
        ] {
            assert!(!is_proof(&secret, Side::Primary, &other, &nonce, &proof), "{other:?}");
        }
    }
}
