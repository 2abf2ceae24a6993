use std::time::SystemTime;

use tokio::sync::oneshot;

use super::*;
use crate::fs::Ownership;
use crate::namespace::{KeyList, Namespace};
use crate::network::Network;
use crate::reader::Reader;
use crate::s3::S3;
use crate::s3::pretended::settings;

/// An adapter of a bucket that nobody asks.
fn adapter() -> Adapter {
    let minute = Duration::from_secs(60);
    let s3 = Arc::new(S3::new(settings(), None, &Network::default()));
    let namespace = Namespace::new(Arc::clone(&s3), "", KeyList::default(), minute, 1 << 20);
    let reader = Reader::new(s3, 1 << 24, minute);
    let ownership = Ownership {
        uid: 0,
        gid: 0,
        file_mode: 0o444,
        dir_mode: 0o555,
        mounted: SystemTime::UNIX_EPOCH,
    };
    let fs = Arc::new(Fs::new(namespace, reader, ownership));
    Adapter::new(fs, Handle::current(), minute)
}

/// What a reply is: it answers EIO when it is dropped.
struct Reply(Option<oneshot::Sender<&'static str>>);

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send("EIO");
        }
    }
}

fn reply() -> (Reply, oneshot::Receiver<&'static str>) {
    let (sender, receiver) = oneshot::channel();
    (Reply(Some(sender)), receiver)
}

#[tokio::test]
async fn an_operation_that_panics_is_answered_and_the_next_one_goes_on() {
    let adapter = adapter();
    let (held, at_once) = reply();
    adapter.answer(move || {
        let _held = held;
        panic!("a test of panics");
    });
    assert_eq!(at_once.await, Ok("EIO"));
    let (held, at_first_poll) = reply();
    adapter.run(Span::none(), async move {
        let _held = held;
        panic!("a test of panics");
    });
    assert_eq!(at_first_poll.await, Ok("EIO"));
    let (held, later) = reply();
    adapter.run(Span::none(), async move {
        let _held = held;
        tokio::task::yield_now().await;
        panic!("a test of panics");
    });
    assert_eq!(later.await, Ok("EIO"));
    let (mut held, well) = reply();
    adapter.run(Span::none(), async move {
        tokio::task::yield_now().await;
        if let Some(sender) = held.0.take() {
            let _ = sender.send("data");
        }
    });
    assert_eq!(well.await, Ok("data"));
}
