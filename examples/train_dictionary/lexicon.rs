//! Makes the list of words that the mail model knows (`lexicon.zst`) of counts of words and of pairs of words.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::path::Path;

/// All counts together are two to this: a mass counts in these.
const WHOLE_BITS: i32 = 30;
/// Masses of pairs are so many times larger, so that rare ones differ.
const PAIR_SCALE: f64 = 16.0;
/// Words of two letters that no list of words has.
const SHORT: [&str; 12] = ["uk", "us", "tv", "ok", "mr", "ms", "dr", "pm", "am", "mb", "km", "nm"];
/// What begins a sentence, as a word before it.
const BEGINNING: &str = "<s>";

/// Makes the file of a folder with `unigrams.txt` and `bigrams.txt`, counts behind a tab, and `words.txt`: the words of that list, and so many others.
pub fn found_in(folder: &Path, others: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let unigrams = std::fs::read_to_string(folder.join("unigrams.txt"))?;
    let bigrams = std::fs::read_to_string(folder.join("bigrams.txt"))?;
    let list = std::fs::read_to_string(folder.join("words.txt"))?;
    let listed: HashSet<&str> = list.lines().collect();
    let counts: Vec<(&str, f64)> = counted(&unigrams)
        .filter(|(word, _)| !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_lowercase()))
        .collect();
    let (mut words, mut rest): (Vec<_>, Vec<_>) = counts.into_iter().partition(|(word, _)| listed.contains(word));
    rest.retain(|(word, _)| word.len() > 2 || SHORT.contains(word));
    rest.sort_by(|(a, m), (b, n)| n.total_cmp(m).then(a.cmp(b)));
    words.extend(rest.into_iter().take(others));
    words.sort_by_key(|(word, _)| *word);
    let numbers: HashMap<&str, usize> = words.iter().enumerate().map(|(i, (word, _))| (*word, i)).collect();
    let unit = counted(&unigrams).map(|(_, count)| count).sum::<f64>() / f64::from(WHOLE_BITS).exp2();
    let mass = |count: f64| ((count / unit).max(1.0).log2() * 8.0).round().min(255.0) as u8;

    let mut out = u32::try_from(words.len())?.to_le_bytes().to_vec();
    let mut before = "";
    for (word, _) in &words {
        let alike = word.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
        out.push(alike as u8);
        out.extend_from_slice(&word.as_bytes()[alike..]);
        out.push(b'\n');
        before = word;
    }
    out.extend(words.iter().map(|(_, count)| mass(*count)));
    let mut followers: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); words.len() + 1];
    for (pair, count) in counted(&bigrams) {
        let Some((head, word)) = pair.split_once(' ') else { continue };
        let head = if head == BEGINNING { Some(words.len()) } else { numbers.get(head).copied() };
        if let (Some(head), Some(word)) = (head, numbers.get(word)) {
            followers[head].insert(*word, count);
        }
    }
    followers.iter().for_each(|follow| put(&mut out, follow.len()));
    for follow in &followers {
        let mut last = 0;
        for word in follow.keys() {
            put(&mut out, word - last);
            last = *word;
        }
    }
    out.extend(followers.iter().flat_map(|follow| follow.values()).map(|count| mass(count * PAIR_SCALE)));
    println!("{} words, {} pairs", words.len(), followers.iter().map(BTreeMap::len).sum::<usize>());
    Ok(zstd::bulk::compress(&out, 19)?)
}

fn counted(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(what, count)| Some((what, count.trim().parse().ok()?)))
}

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number >= 128 {
        out.push(number as u8 & 127 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}
