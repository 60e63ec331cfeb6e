//! AES-128 of single blocks (FIPS 197), for connection IDs that hide the server (`datapath::quic`).
//!
//! By tables, and therefore not in constant time: the key protects who can be told to be whose neighbour, not what is
//! said, and whoever could measure a balancer's cache could read its maps. Nothing here branches on data, divides or
//! panics, so the same code runs in XDP. The tables are computed by the compiler.

/// A block as four words, the first byte in the highest bits of the first.
pub type Block = [u32; 4];

/// The key of each round: one before the first, one after each of ten.
pub type Schedule = [Block; 11];

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    product
}

/// FIPS 197 5.1.1: the inverse in the field, then an affine map of its bits.
const fn substitute(x: u8) -> u8 {
    // x^254 is the inverse of x, and 0 of 0.
    let mut inverse = 1;
    let mut i = 0;
    while i < 254 {
        inverse = times(inverse, x);
        i += 1;
    }
    inverse
        ^ inverse.rotate_left(1)
        ^ inverse.rotate_left(2)
        ^ inverse.rotate_left(3)
        ^ inverse.rotate_left(4)
        ^ 0x63
}

const fn substitutes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[x] = substitute(x as u8);
        x += 1;
    }
    table
}

const fn inverses() -> [u8; 256] {
    let forward = substitutes();
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[forward[x] as usize] = x as u8;
        x += 1;
    }
    table
}

/// Substitution and mixing of a column in one look-up: the bytes of `of`, each multiplied.
const fn mixed(of: [u8; 256], by: [u8; 4]) -> [u32; 256] {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let y = of[x];
        table[x] = u32::from_be_bytes([times(y, by[0]), times(y, by[1]), times(y, by[2]), times(y, by[3])]);
        x += 1;
    }
    table
}

static SUBSTITUTES: [u8; 256] = substitutes();
static INVERSES: [u8; 256] = inverses();
static MIXED: [u32; 256] = mixed(substitutes(), [2, 1, 1, 3]);
static UNMIXED: [u32; 256] = mixed(inverses(), [14, 9, 13, 11]);

/// Byte `n` of a word, as an index: the type tells that it is below 256.
#[inline(always)]
fn byte(word: u32, n: u32) -> usize {
    usize::from((word >> (24 - 8 * n)) as u8)
}

/// Four bytes of four words, substituted and mixed.
#[inline(always)]
fn mix(table: &[u32; 256], words: Block) -> u32 {
    table[byte(words[0], 0)]
        ^ table[byte(words[1], 1)].rotate_right(8)
        ^ table[byte(words[2], 2)].rotate_right(16)
        ^ table[byte(words[3], 3)].rotate_right(24)
}

/// The same without mixing, for the last round.
#[inline(always)]
fn pick(table: &[u8; 256], words: Block) -> u32 {
    u32::from(table[byte(words[0], 0)]) << 24
        | u32::from(table[byte(words[1], 1)]) << 16
        | u32::from(table[byte(words[2], 2)]) << 8
        | u32::from(table[byte(words[3], 3)])
}

#[inline(always)]
fn add(a: Block, b: Block) -> Block {
    [a[0] ^ b[0], a[1] ^ b[1], a[2] ^ b[2], a[3] ^ b[3]]
}

/// Encrypts a block.
#[inline(always)]
pub fn encrypt(keys: &Schedule, block: Block) -> Block {
    let [first, rounds @ .., last] = keys;
    let mut s = add(block, *first);
    for key in rounds {
        s = add(
            [
                mix(&MIXED, [s[0], s[1], s[2], s[3]]),
                mix(&MIXED, [s[1], s[2], s[3], s[0]]),
                mix(&MIXED, [s[2], s[3], s[0], s[1]]),
                mix(&MIXED, [s[3], s[0], s[1], s[2]]),
            ],
            *key,
        );
    }
    add(
        [
            pick(&SUBSTITUTES, [s[0], s[1], s[2], s[3]]),
            pick(&SUBSTITUTES, [s[1], s[2], s[3], s[0]]),
            pick(&SUBSTITUTES, [s[2], s[3], s[0], s[1]]),
            pick(&SUBSTITUTES, [s[3], s[0], s[1], s[2]]),
        ],
        *last,
    )
}

/// Decrypts a block, with the keys that [`for_decryption`] made.
#[inline(always)]
pub fn decrypt(keys: &Schedule, block: Block) -> Block {
    let [first, rounds @ .., last] = keys;
    let mut s = add(block, *first);
    for key in rounds {
        s = add(
            [
                mix(&UNMIXED, [s[0], s[3], s[2], s[1]]),
                mix(&UNMIXED, [s[1], s[0], s[3], s[2]]),
                mix(&UNMIXED, [s[2], s[1], s[0], s[3]]),
                mix(&UNMIXED, [s[3], s[2], s[1], s[0]]),
            ],
            *key,
        );
    }
    add(
        [
            pick(&INVERSES, [s[0], s[3], s[2], s[1]]),
            pick(&INVERSES, [s[1], s[0], s[3], s[2]]),
            pick(&INVERSES, [s[2], s[1], s[0], s[3]]),
            pick(&INVERSES, [s[3], s[2], s[1], s[0]]),
        ],
        *last,
    )
}

/// The keys of all rounds (FIPS 197 5.2). User space computes them once.
pub fn schedule(key: [u8; 16]) -> Schedule {
    let mut words = [0u32; 44];
    for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
        *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let mut constant = 1u8;
    for i in 4..44 {
        let mut word = words[i - 1];
        if i % 4 == 0 {
            let turned = word.rotate_left(8);
            word = pick(&SUBSTITUTES, [turned; 4]) ^ u32::from(constant) << 24;
            constant = times(constant, 2);
        }
        words[i] = words[i - 4] ^ word;
    }
    let mut keys = [[0; 4]; 11];
    for (key, four) in keys.iter_mut().zip(words.chunks_exact(4)) {
        key.copy_from_slice(four);
    }
    keys
}

/// The keys in the order and form that [`decrypt`] wants (FIPS 197 5.3.5).
pub fn for_decryption(keys: &Schedule) -> Schedule {
    let mut turned = *keys;
    turned.reverse();
    for key in &mut turned[1..10] {
        for word in key {
            // Unmixing a column is what UNMIXED does, but for the substitution, which this takes back.
            let bytes = word.to_be_bytes().map(|b| SUBSTITUTES[usize::from(b)]);
            *word = mix(&UNMIXED, [u32::from_be_bytes(bytes); 4]);
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::{Block, decrypt, encrypt, for_decryption, schedule};

    fn block(text: &str) -> Block {
        let word = |i: usize| u32::from_str_radix(&text[8 * i..8 * i + 8], 16).unwrap();
        [word(0), word(1), word(2), word(3)]
    }

    fn key(text: &str) -> [u8; 16] {
        core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn the_example_of_the_standard() {
        // FIPS 197 appendix C.1.
        let keys = schedule(key("000102030405060708090a0b0c0d0e0f"));
        let (plain, secret) =
            (block("00112233445566778899aabbccddeeff"), block("69c4e0d86a7b0430d8cdb78070b4c55a"));
        assert_eq!(encrypt(&keys, plain), secret);
        assert_eq!(decrypt(&for_decryption(&keys), secret), plain);
    }

    #[test]
    fn the_expansion_of_a_key_is_that_of_the_standard() {
        // FIPS 197 appendix A.1, last round.
        let keys = schedule(key("2b7e151628aed2a6abf7158809cf4f3c"));
        assert_eq!(keys[10], block("d014f9a8c9ee2589e13f0cc8b6630ca6"));
    }
}
