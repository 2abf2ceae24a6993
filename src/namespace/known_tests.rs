//! Intervals of key space, against a reference that knows each place by itself.

use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::s3::pretended::meta;

fn span(start: &str, end: Option<&str>) -> Span {
    Span {
        start: start.into(),
        end: end.map(Into::into),
    }
}

fn a_directory(name: &str) -> Node {
    Node::Directory(Arc::new(Dir {
        number: NonZeroU64::MIN,
        prefix: Arc::from(format!("{name}/")),
    }))
}

fn a_file(prefix: &str, name: &str) -> Node {
    Node::File(Arc::new(ObjectVersion {
        number: NonZeroU64::MIN,
        key: format!("{prefix}{name}").into(),
        meta: meta(1, "e"),
    }))
}

fn is_known(directory: &Directory, at: &str) -> bool {
    directory.interval(at.as_bytes()).is_some()
}

#[test]
fn a_name_is_absent_where_its_key_and_its_prefix_are_known() {
    let mut directory = Directory::new(Arc::from(""), None);
    let now = Instant::now();
    directory.learn(Span::point("x"), now, Vec::new());
    assert!(directory.place("x", |_| true).decided().is_none());
    directory.learn(Span::below("x/"), now, Vec::new());
    let decided = directory.place("x", |_| true).decided();
    assert!(matches!(decided, Some((None, _))));
    assert!(directory.place("x", |_| false).decided().is_none());
}

#[test]
fn nothing_with_a_prefix_means_no_directory_and_no_longer_names() {
    let mut directory = Directory::new(Arc::from(""), None);
    directory.learn(Span::below("scene.tif.aux"), Instant::now(), Vec::new());
    for name in ["scene.tif.aux", "scene.tif.aux.xml"] {
        let decided = directory.place(name, |_| true).decided();
        assert!(matches!(decided, Some((None, _))), "{name}");
    }
    assert!(directory.place("scene.tif", |_| true).decided().is_none());
}

#[test]
fn pages_that_meet_make_a_whole_directory() {
    let mut directory = Directory::new(Arc::from(""), None);
    let (old, new) = (Instant::now(), Instant::now() + Duration::from_secs(1));
    directory.learn(span("", Some("m")), new, vec![a_directory("a")]);
    assert_eq!(directory.whole(), None);
    directory.learn(span("n", None), old, Vec::new());
    assert_eq!(directory.whole(), None);
    directory.learn(span("m", Some("n")), new, Vec::new());
    assert_eq!(directory.whole(), Some(old));
    directory.forget("mm");
    assert_eq!(directory.whole(), None);
}

#[test]
fn newer_intervals_take_the_place_of_older_ones_place_by_place() {
    // Spans between all pairs of places, asked and learned in orders that look random; the reference remembers
    // who asked last about each place, and whether something stood there.
    let places = ["", "a", "a/", "ab", "b", "b-", "b/", "c", "d/"];
    let node = |place: &str| match place.strip_suffix('/') {
        Some(name) => a_directory(name),
        None => a_file("", place),
    };
    let mut directory = Directory::new(Arc::from(""), None);
    let mut reference = [None; 9];
    let begin = Instant::now();
    for step in 0..2000_usize {
        let a = step * 7919 % places.len();
        let b = (a + 1 + step * 104_729 % places.len()).min(places.len());
        let asked = begin + Duration::from_millis((step * 31 % 50 + step / 10) as u64);
        let stands = |place: usize| place > 0 && (step + place).is_multiple_of(3);
        let nodes = (a..b).filter(|place| stands(*place));
        let nodes = nodes.map(|place| node(places[place])).collect();
        let end = places.get(b).copied();
        let was_newest = directory.learn(span(places[a], end), asked, nodes);
        let is_older = |known: &Option<(Instant, bool)>| known.is_none_or(|(at, _)| at <= asked);
        assert_eq!(was_newest, reference[a..b].iter().all(is_older));
        for (place, known) in (a..b).zip(&mut reference[a..b]) {
            if is_older(known) {
                *known = Some((asked, stands(place)));
            }
        }
        directory.check_sound();
        for (place, expected) in places.iter().zip(reference) {
            let found = directory.interval(place.as_bytes()).map(|found| {
                let node = directory.node(found, place.as_bytes());
                (found.asked, node.is_some())
            });
            assert_eq!(found, expected, "{place:?}");
        }
    }
}

/// As of a page that was fetched ahead of a reader who pauses, while all is to be forgotten.
#[test]
fn what_was_asked_before_all_was_forgotten_is_not_learned() {
    let now = Instant::now();
    let mut directory = Directory::new(Arc::from(""), Some(now));
    let revision = directory.revision();
    assert!(!directory.learn(span("", None), now, vec![a_directory("a")]));
    assert!(directory.is_blank() && directory.revision() == revision);
    let later = now + Duration::from_nanos(1);
    assert!(directory.learn(span("", None), later, vec![a_directory("a")]));
    assert_eq!(directory.whole(), Some(later));
}

/// Found by fuzzing: what an empty interval cost was counted for ever, and older ones behind it stayed.
#[test]
fn a_span_that_holds_nothing_tells_nothing() {
    let mut directory = Directory::new(Arc::from(""), None);
    let now = Instant::now();
    directory.learn(span("a", None), now, vec![a_directory("b")]);
    let (bytes, revision) = (directory.bytes(), directory.revision());
    for (start, end) in [("a", "a"), ("b", "b"), ("c", "b")] {
        directory.learn(span(start, Some(end)), now, Vec::new());
        directory.check_sound();
        assert_eq!((directory.bytes(), directory.revision()), (bytes, revision));
    }
    directory.learn(span("b", None), now, vec![a_directory("b")]);
    directory.check_sound();
}

/// Names that were asked for and are not there have bounds and nothing else.
#[test]
fn bounds_count_by_their_length() {
    let mut directory = Directory::new(Arc::from(""), None);
    let before = directory.bytes();
    let name = "n".repeat(200);
    directory.learn(Span::point(&name), Instant::now(), Vec::new());
    let one = directory.bytes() - before;
    assert!(one > 2 * 200 + 72, "{one}");
    directory.forget(&name);
    assert_eq!(directory.bytes(), before);
}

#[test]
fn facts_outside_the_span_stay_and_those_inside_go() {
    let mut directory = Directory::new(Arc::from(""), None);
    let now = Instant::now();
    let names = ["a", "b", "c"].map(a_directory).into();
    directory.learn(span("", None), now, names);
    let before = directory.bytes();
    directory.learn(span("b", Some("c")), now, Vec::new());
    let names = |directory: &Directory| {
        let run = directory.run(b"", 1000, |_| true).expect("all is known");
        run.nodes.len()
    };
    let left = names(&directory);
    assert_eq!((left, is_known(&directory, "b/")), (2, true));
    directory.learn(span("b", Some("c")), now, vec![a_directory("b")]);
    assert!(directory.bytes() >= before && names(&directory) == 3);
}

#[test]
fn files_are_found_either_way_through_all_that_is_known() {
    let mut directory = Directory::new(Arc::from("d/"), None);
    let now = Instant::now();
    let of = |names: &[&str]| names.iter().map(|name| a_file("d/", name)).collect();
    directory.learn(span("", Some("m")), now, of(&["a", "b", "c"]));
    directory.learn(span("x", None), now, of(&["x", "y"]));
    let found = |at, way, most| -> Vec<_> {
        let files = directory.files_from(str::as_bytes(at), way).take(most);
        files.map(|file| file.key[2..].to_owned()).collect()
    };
    assert_eq!(found("b", Way::Forward, 9), ["c", "x", "y"]);
    assert_eq!(found("x", Way::Back, 9), ["c", "b", "a"]);
    assert_eq!(found("y", Way::Back, 2), ["x", "c"]);
    assert_eq!(found("n", Way::Forward, 1), ["x"]);
    assert_eq!(found("n", Way::Back, 1), ["c"]);
    assert!(found("a", Way::Back, 9).is_empty());
}
