//! What is given up leaves nothing behind.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_question_that_all_give_up_leaves_nothing_behind() {
    let questions = Questions::<u32>::default();
    let ask = || questions.ask("key".to_owned(), std::future::pending());
    let patience = std::time::Duration::from_secs(1);
    let (first, second) = futures_util::future::join(
        tokio::time::timeout(patience, ask()),
        tokio::time::timeout(2 * patience, ask()),
    )
    .await;
    assert!(first.is_err() && second.is_err());
    assert_eq!(questions.len(), 0);
}
