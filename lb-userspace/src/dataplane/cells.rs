//! Two-choice (cuckoo) tables: every key is in one of two cells, so that the datapath looks at two at most.

use lb_common::hash;

/// No salt was found with which all keys fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Moves of one insertion before the salt is given up.
const MOVES: usize = 512;

/// Places `keys` (the words that are hashed) into `mask + 1` cells. The result says which key is in each cell.
///
/// # Errors
/// [`Full`] when this salt leaves some key without a place.
pub(crate) fn place(keys: &[[u32; 2]], salt: u32, mask: u32) -> Result<Vec<Option<u32>>, Full> {
    let mut cells: Vec<Option<u32>> = vec![None; mask as usize + 1];
    for key in 0..keys.len() {
        let mut key = key;
        let (mut cell, _) = hash::cells(keys[key], salt, mask);
        let mut placed = false;
        for _ in 0..MOVES {
            let (first, second) = hash::cells(keys[key], salt, mask);
            if cells[first as usize].is_none() {
                cell = first;
            } else if cells[second as usize].is_none() {
                cell = second;
            }
            match cells[cell as usize].replace(key as u32) {
                None => {
                    placed = true;
                    break;
                }
                Some(evicted) => {
                    // The evicted key goes to its other cell.
                    key = evicted as usize;
                    let (first, second) = hash::cells(keys[key], salt, mask);
                    cell = if cell == first { second } else { first };
                }
            }
        }
        if !placed {
            return Err(Full);
        }
    }
    settle(keys, salt, mask, &mut cells);
    Ok(cells)
}

/// Moves every key whose first cell is empty there, until there is none: an empty first cell then says at once that a
/// key is absent.
fn settle(keys: &[[u32; 2]], salt: u32, mask: u32, cells: &mut [Option<u32>]) {
    loop {
        let mut moved = false;
        for at in 0..cells.len() {
            let Some(key) = cells[at] else { continue };
            let first = hash::cells(keys[key as usize], salt, mask).0 as usize;
            if cells[first].is_none() {
                cells[first] = cells[at].take();
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::hash;

    use super::{Full, place};

    #[test]
    fn every_key_is_in_one_of_its_two_cells() {
        let keys: Vec<[u32; 2]> = (0..400u32).map(|i| [(0xc000_0200 + i).to_be(), 0]).collect();
        let cells = (0..50).find_map(|salt| place(&keys, salt, 1023).ok().map(|c| (salt, c)));
        let (salt, cells) = cells.expect("a salt for a load of 40 %");
        for (i, key) in keys.iter().enumerate() {
            let (a, b) = hash::cells(*key, salt, 1023);
            assert!(cells[a as usize] == Some(i as u32) || cells[b as usize] == Some(i as u32), "key {i}");
            assert!(cells[a as usize].is_some(), "key {i} is in its second cell, and the first is empty");
        }
        assert_eq!(cells.iter().flatten().count(), keys.len());
    }

    #[test]
    fn more_keys_than_cells_is_full() {
        let keys: Vec<[u32; 2]> = (0..9).map(|i| [i, 0]).collect();
        assert_eq!(place(&keys, 0, 7), Err(Full));
    }
}
