//! A keyed permutation of the numbers with a given count of digits. It makes RANDOM card numbers
//! unguessable and unique, without a look-up or a retry.
//!
//! The construction is the generalized Feistel cipher with cycle-walking of Black and Rogaway,
//! "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002, sections 3 and 5). The round function is
//! HMAC-SHA-256 over the round, the domain and the half; ten rounds, as many as FF1 has (NIST SP
//! 800-38G).

use ethnum::U256;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// An org's own key. It is generated with the org and never changes, because another key could
/// repeat issued numbers.
pub type PermutationKey = Secret<[u8; 32]>;

/// The maximum number of digits of a domain. A card number has at most 50 characters.
pub const MAX_DIGITS: u32 = 50;

const ROUNDS: u8 = 10;

/// A permutation of `0..10^digits`.
pub struct Permutation {
    prf: Hmac<Sha256>,
    digits: u32,
    /// The side of the square that holds the domain: its square is 1 or 1.6 times `10^digits`.
    side: U256,
}

impl Permutation {
    /// The permutation of the numbers with `digits` digits (1 to [`MAX_DIGITS`]) under `key`.
    ///
    /// # Panics
    /// Never: HMAC takes keys of every length.
    pub fn new(key: &PermutationKey, digits: u32) -> Self {
        debug_assert!((1..=MAX_DIGITS).contains(&digits));
        let side = U256::from(10_u8).pow(digits / 2) * if digits.is_multiple_of(2) { 1 } else { 4_u128 };
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let prf = Hmac::new_from_slice(key.expose()).expect("HMAC takes keys of every length");
        Self { prf, digits, side }
    }

    /// The image of `value`, which must be below `10^digits`.
    pub fn permute(&self, value: U256) -> U256 {
        let size = U256::from(10_u8).pow(self.digits);
        let mut image = self.encipher(value);
        // At least five of eight images are within the domain, so the loop is short. It always
        // ends, because repeating a permutation comes back to `value`, which is in the domain.
        while image >= size {
            image = self.encipher(image);
        }
        image
    }

    /// The value whose image is `image`, which must be below `10^digits`.
    pub fn invert(&self, image: U256) -> U256 {
        let size = U256::from(10_u8).pow(self.digits);
        let mut value = self.decipher(image);
        while value >= size {
            value = self.decipher(value);
        }
        value
    }

    /// A permutation of the whole square.
    fn encipher(&self, value: U256) -> U256 {
        let (mut left, mut right) = (value / self.side, value % self.side);
        for round in 0..ROUNDS {
            (left, right) = (right, (left + self.round(round, right)) % self.side);
        }
        left * self.side + right
    }

    /// The inverse of [`Self::encipher`].
    fn decipher(&self, image: U256) -> U256 {
        let (mut left, mut right) = (image / self.side, image % self.side);
        for round in (0..ROUNDS).rev() {
            let previous = (right + self.side - self.round(round, left)) % self.side;
            (left, right) = (previous, left);
        }
        left * self.side + right
    }

    /// The round function, a number below `side`. 256 bits reduced to at most 84 leave no visible
    /// bias.
    fn round(&self, round: u8, half: U256) -> U256 {
        let mut prf = self.prf.clone();
        prf.update(&[round]);
        prf.update(&self.digits.to_be_bytes());
        prf.update(&half.to_be_bytes());
        U256::from_be_bytes(prf.finalize().into_bytes().into()) % self.side
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> PermutationKey {
        Secret::new([byte; 32])
    }

    fn size(digits: u32) -> U256 {
        U256::from(10_u8).pow(digits)
    }

    #[test]
    fn another_key_gives_another_order() {
        let order = |k| -> Vec<U256> {
            let permutation = Permutation::new(&key(k), 6);
            (0..100_u32).map(|n| permutation.permute(n.into())).collect()
        };
        let common = order(1).iter().zip(order(2)).filter(|(a, b)| **a == *b).count();
        assert!(common <= 2, "{common} of 100 the same");
    }

    #[test]
    fn neighbours_are_far_apart() {
        let permutation = Permutation::new(&key(3), 10);
        let images: Vec<U256> = (0..1000_u32).map(|n| permutation.permute(n.into())).collect();
        let close = images.windows(2).filter(|w| w[0].abs_diff(w[1]) < U256::from(1_000_000_u32)).count();
        assert!(close <= 5, "{close} of 999 neighbours within 0.01 % of the range");
        let low = images.iter().filter(|image| **image < size(10) / 2).count();
        assert!((400..600).contains(&low), "{low} of 1000 in the lower half");
    }

    proptest! {
        #[test]
        fn every_length_is_permuted(digits in 1..=MAX_DIGITS, high: u128, low: u128, k: u8) {
            let permutation = Permutation::new(&key(k), digits);
            let value = U256::from_words(high, low) % size(digits);
            let image = permutation.permute(value);
            prop_assert!(image < size(digits));
            prop_assert_eq!(permutation.invert(image), value);
        }
    }
}
