//! The shape of a directory's keys, and where its key space is split by it.
//!
//! Neither the number of keys nor the last of them is known before a listing has come to its end. What
//! the pages so far tell is at which characters keys differ, by which characters, and how many keys
//! share their first so many. From that follow places at which to ask what comes behind; the answers
//! tell which of them part keys from keys, and add to the shape.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// Keys may differ further on, but ranges are not split there: it would take as many equal characters.
const DEEPEST: usize = 255;
/// More requests side by side than this say little more.
const MOST: usize = 32;
/// Places before the first character that differs, at which keys not yet seen may differ.
const MOST_DEAD: usize = 16;
/// A split that yields fewer parts goes on with the next character.
const FEWEST: usize = 4;

/// What is known of how the places of a directory look.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// How many were seen.
    places: usize,
    /// By character: how many of those seen differ there first from the one before them.
    parted: Vec<usize>,
    /// What was seen in a row, by its first place: its last.
    rows: BTreeMap<Box<str>, Box<str>>,
    /// By character: what was seen there.
    seen: Vec<BTreeSet<char>>,
}

/// A place to split at.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) at: String,
    /// Places like this were seen: it need not be asked whether there is something behind it.
    pub(super) is_likely: bool,
}

impl Shape {
    /// Notes neighbours in key order.
    pub(super) fn learn<'a>(&mut self, mut places: impl Iterator<Item = &'a str>) {
        let Some(first) = places.next() else { return };
        self.note(first, 0);
        self.places += 1;
        let mut last = first;
        for place in places {
            self.places += 1;
            let parted = first_difference(last, place);
            *self.parted_at(parted) += 1;
            self.note(place, parted);
            last = place;
        }
        self.insert_row(first, last);
    }

    /// Counts how a row of neighbours differs from the rows seen before and behind it.
    fn insert_row(&mut self, first: &str, last: &str) {
        let before = self
            .rows
            .range::<str, _>((Unbounded, Excluded(first)))
            .next_back();
        let before = before.map(|(_, last)| last.clone());
        let behind = self
            .rows
            .range::<str, _>((Included(first), Unbounded))
            .next();
        let behind = behind.map(|(first, _)| first.clone());
        if let (Some(before), Some(behind)) = (&before, &behind) {
            let parted = self.parted_at(first_difference(before, behind));
            *parted = parted.saturating_sub(1);
        }
        if let Some(before) = before {
            *self.parted_at(first_difference(&before, first)) += 1;
        }
        if let Some(behind) = behind {
            *self.parted_at(first_difference(last, &behind)) += 1;
        }
        self.rows.insert(first.into(), last.into());
    }

    fn parted_at(&mut self, character: usize) -> &mut usize {
        if self.parted.len() <= character {
            self.parted.resize(character + 1, 0);
        }
        &mut self.parted[character]
    }

    /// Notes the characters of a place from the `from`-th on.
    pub(super) fn note(&mut self, place: &str, from: usize) {
        for (at, c) in place.chars().enumerate().take(DEEPEST).skip(from) {
            if self.seen.len() <= at {
                self.seen.resize(at + 1, BTreeSet::new());
            }
            self.seen[at].insert(c);
        }
    }

    /// How many places share their first `characters`, on average of those seen.
    fn sharing(&self, characters: usize) -> usize {
        let parted: usize = self.parted.iter().take(characters).sum();
        self.places / (1 + parted)
    }

    /// How many places lie between `base` and `end`, as far as that can be told: where they share so
    /// many characters, so many lie in between elsewhere.
    pub(super) fn expected(&self, base: &str, end: Option<&str>) -> usize {
        end.map_or(usize::MAX, |end| {
            self.sharing(first_difference(base, end) + 1)
        })
    }

    /// Places behind `base` and before `end` to split at, in order; none where nothing suggests any.
    /// Parts are about `part` places large, if what follows looks like what was seen.
    pub(super) fn candidates(&self, base: &str, end: Option<&str>, part: usize) -> Vec<Candidate> {
        let chars: Vec<char> = base.chars().take(DEEPEST).collect();
        let shared = end.map(|end| first_difference(base, end));
        let mut found = Vec::new();
        let mut dead = Vec::new();
        let mut varies = false;
        for at in shared.unwrap_or(0)..chars.len() {
            let head: String = chars[..at].iter().collect();
            let candidate = |c: char| Candidate {
                at: format!("{head}{c}"),
                is_likely: self.seen[at].contains(&c),
            };
            let Some(seen) = self.seen.get(at) else { break };
            if seen.len() > 1 {
                varies = true;
                let each = self.sharing(at + 1).max(1);
                match self.finer(&chars, at) {
                    Some(then) if part < each && each < 2 * part => {
                        found.extend(self.pairs(&chars, at, then, part));
                    }
                    _ => {
                        let behind = self.alphabet(at).into_iter().filter(|c| *c > chars[at]);
                        let behind: BTreeSet<char> = behind.chain(leaps(chars[at])).collect();
                        let stride = (part / each).max(1);
                        let behind = behind.into_iter().skip(stride - 1).step_by(stride);
                        found.extend(behind.map(candidate));
                    }
                }
            } else if !varies && Some(at) != shared {
                dead.extend(successor(chars[at]).map(candidate));
            }
            found.retain(|one| end.is_none_or(|end| one.at.as_str() < end));
            if found.len() >= FEWEST {
                break;
            }
        }
        let mut all = thinned(dead, MOST_DEAD);
        all.append(&mut thinned(found, MOST));
        all.retain(|one| one.at.as_str() > base && end.is_none_or(|end| one.at.as_str() < end));
        all.sort();
        all.dedup_by(|a, b| a.at == b.at);
        all
    }

    /// The next character behind the `at`-th that differs. In scripts of many letters, most are not known
    /// yet.
    fn finer(&self, chars: &[char], at: usize) -> Option<usize> {
        let differs = |then: &usize| self.seen.get(*then).is_some_and(|seen| seen.len() > 1);
        let is_known = |then: &usize| chars[at].is_ascii() && chars[*then].is_ascii();
        (at + 1..chars.len()).find(differs).filter(is_known)
    }

    /// Places to split at by two characters together, where parts by the first would be a little too large: a
    /// thousand keys fill a page, and whether that is all takes a request more.
    fn pairs(&self, chars: &[char], at: usize, then: usize, part: usize) -> Vec<Candidate> {
        let between: String = chars[at + 1..then].iter().collect();
        let head: String = chars[..at].iter().collect();
        let (firsts, seconds) = (self.alphabet(at), self.alphabet(then));
        let pairs = firsts
            .into_iter()
            .flat_map(|first| seconds.iter().map(move |second| (first, *second)))
            .filter(|pair| *pair > (chars[at], chars[then]));
        let stride = (part / self.sharing(then + 1).max(1)).max(1);
        pairs
            .skip(stride - 1)
            .step_by(stride)
            .map(|(first, second)| Candidate {
                at: format!("{head}{first}{between}{second}"),
                is_likely: self.seen[at].contains(&first) && self.seen[then].contains(&second),
            })
            .collect()
    }

    fn alphabet(&self, at: usize) -> BTreeSet<char> {
        self.seen.get(at).map(alphabet).unwrap_or_default()
    }
}

/// At most `most` of `all`, evenly.
fn thinned<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let stride = all.len().div_ceil(most).max(1);
    all.into_iter().step_by(stride).collect()
}

/// The number of characters that both begin with.
pub(super) fn first_difference(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// A `/` in the middle of a place would be inside a common prefix.
fn successor(c: char) -> Option<char> {
    let next = char::from_u32(u32::from(c) + 1)?;
    if next == '/' { Some('0') } else { Some(next) }
}

/// Of scripts with many letters: farther and farther ahead.
fn leaps(from: char) -> impl Iterator<Item = char> {
    let leaps = if from.is_ascii() { 0 } else { 14 };
    (0..leaps).filter_map(move |power| char::from_u32(u32::from(from) + (1 << power)))
}

/// What was seen, and what belongs to it: all digits to a digit, all letters to a letter of their case,
/// unless it is hexadecimal.
fn alphabet(seen: &BTreeSet<char>) -> BTreeSet<char> {
    let mut all = seen.clone();
    all.remove(&'/');
    if seen.iter().any(char::is_ascii_digit) {
        all.extend('0'..='9');
    }
    for (first, hex, last) in [('a', 'f', 'z'), ('A', 'F', 'Z')] {
        match seen.range(first..=last).next_back() {
            None => {}
            Some(letter) if *letter <= hex => all.extend(first..=hex),
            Some(_) => all.extend(first..=last),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(places: &[String]) -> Shape {
        let mut shape = Shape::default();
        shape.learn(places.iter().map(String::as_str));
        shape
    }

    fn places(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|one| &*one.at).collect()
    }

    #[test]
    fn sequence_numbers_are_split_by_their_digits() {
        let numbers: Vec<_> = (0..2000).map(|i| format!("{i:06}.nc")).collect();
        let mut shape = shape(&numbers);
        let first = shape.candidates("001999.nc", None, 900);
        // 900 numbers each: a page of 1,000 goes beyond, and so tells that there are no more.
        let digits = "0028 0037 0046 0055 0064 0073 0082 0091 01 1";
        assert_eq!(places(&first).join(" "), digits);
        assert!(first.iter().all(|one| !one.is_likely));
        // The answer behind `01`.
        shape.note("010000.nc", 0);
        let second = shape.candidates("010000.nc", Some("1"), 900);
        let digits = ["02", "03", "04", "05", "06", "07", "08", "09"];
        assert_eq!(places(&second), digits);
        let third = shape.candidates("010000.nc", Some("02"), 900);
        let digits = "0109 0118 0127 0136 0145 0154 0163 0172 0181 0190 0199";
        assert_eq!(places(&third).join(" "), digits);
        assert!(third[1].is_likely && !third[8].is_likely);
        assert_eq!(shape.expected("0109", Some("0118")), 1000);
    }

    /// Pages come in any order, and each of them alone has nothing in it that differs further up.
    #[test]
    fn how_many_share_their_beginning_is_counted_over_pages() {
        let page = |i: usize| (0..1000).map(move |j| format!("{:08}", i * 1000 + j));
        let mut shape = Shape::default();
        for i in [0, 11, 42, 17, 12, 1, 30] {
            let page: Vec<_> = page(i).collect();
            shape.learn(page.iter().map(String::as_str));
        }
        assert_eq!(shape.expected("00011", Some("00012")), 1000);
        // Of 7,000 seen, by 0001, 0003, 0004 and what begins with 0000.
        assert_eq!(shape.expected("0001", Some("0002")), 1750);
    }

    #[test]
    fn a_common_stem_is_asked_about_and_not_spread() {
        let dates: Vec<_> = (1..=28)
            .flat_map(|d| (0..24).map(move |h| format!("SPL3_{:04}01{d:02}T{h:02}", 2015)))
            .collect();
        let shape = shape(&dates);
        let all = shape.candidates("SPL3_20150128T23", None, 900);
        let all = places(&all);
        assert!(
            all.contains(&"SPL3_2016") && all.contains(&"SPL3_20151"),
            "{all:?}"
        );
        assert!(all.contains(&"T") && all.len() < 20, "{all:?}");
    }

    #[test]
    fn parts_that_are_too_small_are_put_together() {
        let hex: Vec<_> = (0..2000_u32).map(|i| format!("{:05x}", i * 13)).collect();
        let shape = shape(&hex);
        let some = shape.candidates("01000", Some("02"), 900);
        assert!(some.len() <= 16, "{some:?}");
        assert!(some.is_sorted());
    }

    #[test]
    fn places_between_are_between_whatever_the_keys_look_like() {
        let odd = [
            "a/",
            "a0",
            "a\u{10FFFF}",
            "b.",
            "b/",
            "é",
            "日本",
            "日本語/",
            "\u{10FFFF}",
        ];
        let shape = shape(&odd.map(str::to_owned));
        for base in odd {
            for end in odd.iter().map(|end| Some(*end)).chain([None]) {
                let all = shape.candidates(base, end, 1);
                assert!(all.is_sorted_by(|a, b| a.at < b.at));
                for one in all {
                    assert!(*one.at > *base && end.is_none_or(|end| *one.at < *end));
                    assert!(!one.at.contains('/'), "{one:?}");
                }
            }
        }
    }
}
