//! Chance that can be repeated: every throw is a hash of what it is thrown for.
//!
//! A throw depends on (seed, channel, recipient, ordinal, purpose) and on nothing else: neither on arrival order nor
//! on how many requests are under way. So the same seed fails the same recipients, however many workers send to them.
//! The hash is written out here because it must stay the same across builds, which `std`'s does not promise.

use crate::domain::Channel;

/// What a throw decides; keeps two decisions about one request independent of each other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Mix = 1,
    Latency = 2,
    MessageId = 3,
    Fate = 4,
    ReceiptDelay = 5,
    Doubled = 6,
    Shuffled = 7,
}

/// The recipient as the hash sees it; also the key under which a recipient's requests are counted.
pub(super) fn recipient_key(seed: u64, channel: Channel, recipient: &str) -> u64 {
    let salt = mixed(seed ^ u64::from(channel.code().unsigned_abs()));
    mixed(salt ^ text_hash(recipient))
}

/// 64 bits for one decision about a recipient's `ordinal`-th request.
pub(super) fn throw(recipient_key: u64, ordinal: u64, purpose: Purpose) -> u64 {
    mixed(recipient_key ^ mixed(ordinal.wrapping_mul(8).wrapping_add(purpose as u64)))
}

/// A throw as a number from 0 (included) to 1 (not included).
pub(super) fn unit(throw: u64) -> f64 {
    /// As many bits as an f64's mantissa holds, so that 1.0 is never reached.
    const MANTISSA_BITS: u32 = 53;
    (throw >> (64 - MANTISSA_BITS)) as f64 / (1u64 << MANTISSA_BITS) as f64
}

/// FNV-1a.
pub(super) fn text_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of SplitMix64: spreads every bit over all of them.
pub(super) fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The standard normal's quantile for `share` in (0, 1): where that share of all values lies below.
///
/// Acklam's rational approximation, off by less than 1.2e-9: far finer than any latency needs.
pub(super) fn normal_quantile(share: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -54.476_098_798_224_06,
        161.585_836_858_040_9,
        -155.698_979_859_886_6,
        66.801_311_887_719_72,
        -13.280_681_552_885_72,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [0.007_784_695_709_041_462, 0.322_467_129_070_039_8, 2.445_134_137_142_996, 3.754_408_661_907_416];
    const TAIL: f64 = 0.024_25;
    let polynomial = |factors: &[f64], x: f64| factors.iter().fold(0.0, |sum, factor| sum * x + factor);
    let tail = |share: f64| {
        let q = (-2.0 * share.ln()).sqrt();
        polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    };
    if share < TAIL {
        tail(share)
    } else if share > 1.0 - TAIL {
        -tail(1.0 - share)
    } else {
        let q = share - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throws_are_spread_evenly() {
        let key = recipient_key(7, Channel::WhatsApp, "79991234567");
        let low = (0..10_000).filter(|n| unit(throw(key, *n, Purpose::Mix)) < 0.1).count();
        assert!((900..1100).contains(&low), "{low} of 10000 under a tenth");
    }

    #[test]
    fn a_throw_depends_on_each_of_its_parts() {
        let base = throw(recipient_key(1, Channel::WhatsApp, "1"), 0, Purpose::Mix);
        assert_eq!(base, throw(recipient_key(1, Channel::WhatsApp, "1"), 0, Purpose::Mix));
        assert_ne!(base, throw(recipient_key(2, Channel::WhatsApp, "1"), 0, Purpose::Mix));
        assert_ne!(base, throw(recipient_key(1, Channel::Telegram, "1"), 0, Purpose::Mix));
        assert_ne!(base, throw(recipient_key(1, Channel::WhatsApp, "2"), 0, Purpose::Mix));
        assert_ne!(base, throw(recipient_key(1, Channel::WhatsApp, "1"), 1, Purpose::Mix));
        assert_ne!(base, throw(recipient_key(1, Channel::WhatsApp, "1"), 0, Purpose::Latency));
    }

    #[test]
    fn the_quantile_knows_its_textbook_values() {
        for (share, expected) in [(0.5, 0.0), (0.99, 2.326_347_87), (0.01, -2.326_347_87), (0.841_344_75, 1.0)] {
            assert!((normal_quantile(share) - expected).abs() < 1e-6, "{share}");
        }
    }
}
