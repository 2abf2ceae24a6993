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

fn is_known(directory: &Directory, at: &str) -> bool {
    directory.interval(at.as_bytes()).is_some()
}

#[test]
fn a_name_is_absent_where_its_key_and_its_prefix_are_known() {
    let mut directory = Directory::new(Arc::from(""));
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
    let mut directory = Directory::new(Arc::from(""));
    directory.learn(Span::below("scene.tif.aux"), Instant::now(), Vec::new());
    for name in ["scene.tif.aux", "scene.tif.aux.xml"] {
        let decided = directory.place(name, |_| true).decided();
        assert!(matches!(decided, Some((None, _))), "{name}");
    }
    assert!(directory.place("scene.tif", |_| true).decided().is_none());
}

#[test]
fn pages_that_meet_make_a_whole_directory() {
    let mut directory = Directory::new(Arc::from(""));
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
    // Spans between all pairs of places, in an order that looks random; the reference remembers the
    // last writer of each place.
    let places = ["", "a", "a/", "ab", "b", "b-", "b/", "c", "d/"];
    let mut directory = Directory::new(Arc::from(""));
    let mut reference = [None; 9];
    let begin = Instant::now();
    for step in 0..2000_usize {
        let a = step * 7919 % places.len();
        let b = a + 1 + step * 104_729 % places.len();
        let end = places.get(b).copied();
        let asked = begin + Duration::from_millis(step as u64);
        directory.learn(span(places[a], end), asked, Vec::new());
        reference[a..b.min(places.len())].fill(Some(asked));
        for (place, expected) in places.iter().zip(reference) {
            let asked = directory
                .interval(place.as_bytes())
                .map(|found| found.asked);
            assert_eq!(asked, expected, "{place:?}");
        }
    }
}

/// Found by fuzzing: what an empty interval cost was counted for ever, and older ones behind it stayed.
#[test]
fn a_span_that_holds_nothing_tells_nothing() {
    let mut directory = Directory::new(Arc::from(""));
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

#[test]
fn facts_outside_the_span_stay_and_those_inside_go() {
    let mut directory = Directory::new(Arc::from(""));
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
    let mut directory = Directory::new(Arc::from("d/"));
    let now = Instant::now();
    let file = |name: &str| {
        Node::File(Arc::new(ObjectVersion {
            number: NonZeroU64::MIN,
            key: format!("d/{name}").into(),
            meta: meta(1, "e"),
        }))
    };
    let of = |names: &[&str]| names.iter().map(|name| file(name)).collect();
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
