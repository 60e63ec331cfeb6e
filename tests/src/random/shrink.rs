//! Making what fails smaller, for as long as it fails.

/// Runs of a frame that are spent on making it smaller.
const ATTEMPTS: usize = 4000;

/// As few of these frames as still fail, in their order.
pub fn frames(all: &[Vec<u8>], mut fails: impl FnMut(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    let mut left = all.to_vec();
    let mut piece = left.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < left.len() {
            let mut fewer = left.clone();
            fewer.drain(at..(at + piece).min(left.len()));
            if fails(&fewer) {
                left = fewer;
            } else {
                at += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    left
}

/// The frame, cut as short and made as empty as it still fails; at least 14 bytes.
pub fn bytes(frame: &[u8], mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut left = frame.to_vec();
    let mut attempts = 0;
    loop {
        let before = left.clone();
        for piece in [1024, 256, 64, 32, 16, 8, 4, 2, 1] {
            let mut at = left.len();
            while at > 0 && attempts < ATTEMPTS {
                let from = at.saturating_sub(piece);
                attempts += 2;
                let shorter = [&left[..from], &left[at..]].concat();
                let mut emptier = left.clone();
                emptier[from..at].fill(0);
                if shorter.len() >= 14 && fails(&shorter) {
                    left = shorter;
                } else if emptier != left && fails(&emptier) {
                    left = emptier;
                }
                at = from.min(left.len());
            }
        }
        if left == before || attempts >= ATTEMPTS {
            return left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, frames};

    #[test]
    fn only_what_matters_is_left() {
        let frame: Vec<u8> = (1..=200).collect();
        // Fails while byte 20 and byte 150 are there in this order.
        let fails =
            |f: &[u8]| f.iter().position(|b| *b == 20) < f.iter().position(|b| *b == 150) && f.contains(&20);
        let left = bytes(&frame, fails);
        let telling: Vec<u8> = left.iter().copied().filter(|b| *b != 0).collect();
        assert_eq!((left.len(), telling), (14, vec![20, 150]), "{left:?}");
    }

    #[test]
    fn only_the_frames_that_matter_are_left() {
        let all: Vec<Vec<u8>> = (0..100).map(|i| vec![i]).collect();
        let fails = |some: &[Vec<u8>]| some.contains(&vec![3]) && some.contains(&vec![70]);
        assert_eq!(frames(&all, fails), [vec![3], vec![70]]);
    }
}
