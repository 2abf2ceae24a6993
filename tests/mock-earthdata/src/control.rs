//! The mock's own paths, below `/_mock/` of Earthdata Login: what [`crate::World`] does, for scripts.
//!
//! | request                       | what it does                                                          |
//! |-------------------------------|-----------------------------------------------------------------------|
//! | GET `/_mock/counters`         | the counters as JSON                                                  |
//! | POST `/_mock/reset`           | sets them to zero                                                     |
//! | GET `/_mock/faults`           | the rules as JSON, with how often each matched and fired              |
//! | POST `/_mock/faults`          | adds the rules of its body, one to a line; all or none                |
//! | DELETE `/_mock/faults`        | takes all rules back                                                  |
//! | POST `/_mock/connections`     | body `refuse`, `accept` or `kill`: the connections of S3              |
//! | POST `/_mock/clock`           | body: the offset of the hosts' clocks in seconds                      |
//! | POST `/_mock/answer`          | body: `normal`, `hang`, or a status and its text, of `/s3credentials` |

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::faults::FaultRule;
use crate::reply::{Reply, html, json};
use crate::settings::Answer;
use crate::state::State;

/// More than any script of faults.
const MAX_BODY: usize = 1024 * 1024;

/// Answers a request below `/_mock/`.
pub(crate) async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return wrong("the body did not arrive");
    };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    match (method, path.as_str()) {
        (Method::GET, "/_mock/counters") => json(StatusCode::OK, &state.meter.counters()),
        (Method::POST, "/_mock/reset") => {
            state.meter.reset();
            done()
        }
        (Method::GET, "/_mock/faults") => json(StatusCode::OK, &state.script.lock().counts()),
        (Method::POST, "/_mock/faults") => {
            let lines = body.lines().filter(|line| !line.trim().is_empty());
            match lines.map(str::parse).collect::<Result<Vec<FaultRule>, _>>() {
                Ok(rules) => {
                    let mut script = state.script.lock();
                    rules.into_iter().for_each(|rule| script.add(rule));
                    done()
                }
                Err(error) => wrong(&error.to_string()),
            }
        }
        (Method::DELETE, "/_mock/faults") => {
            state.script.lock().clear();
            done()
        }
        (Method::POST, "/_mock/connections") => connections(state.clone(), body.trim()).await,
        (Method::POST, "/_mock/clock") => match body.trim().parse() {
            Ok(offset) => {
                state.controls.lock().clock_offset = offset;
                done()
            }
            Err(_) => wrong("not a number of seconds"),
        },
        (Method::POST, "/_mock/answer") => match parse_answer(body.trim()) {
            Some(answer) => {
                state.controls.lock().answer = answer;
                done()
            }
            None => wrong("neither normal nor hang nor a status"),
        },
        _ => html(StatusCode::NOT_FOUND, "Not Found", "There is no such page."),
    }
}

fn parse_answer(text: &str) -> Option<Answer> {
    match text {
        "normal" => Some(Answer::Normal),
        "hang" => Some(Answer::Hang),
        _ => {
            let (status, body) = text.split_once(' ').unwrap_or((text, ""));
            let status = status
                .parse()
                .ok()
                .filter(|status| (100..600).contains(status))?;
            Some(Answer::Status(status, body.to_owned()))
        }
    }
}

/// These wait for tasks of this runtime, which must not wait for them.
async fn connections(state: Arc<State>, what: &str) -> Reply {
    let work: fn(&State) -> std::io::Result<usize> = match what {
        "refuse" => |state| state.doors.s3.set_open(false).map(|()| 0),
        "accept" => |state| state.doors.s3.set_open(true).map(|()| 0),
        "kill" => |state| Ok(state.doors.s3.kill_connections()),
        _ => return wrong("neither refuse nor accept nor kill"),
    };
    match tokio::task::spawn_blocking(move || work(&state)).await {
        Ok(Ok(killed)) => json(StatusCode::OK, &json!({ "killed": killed })),
        Ok(Err(error)) => wrong(&error.to_string()),
        Err(error) => wrong(&error.to_string()),
    }
}

fn done() -> Reply {
    json(StatusCode::OK, &json!({}))
}

fn wrong(text: &str) -> Reply {
    json(StatusCode::BAD_REQUEST, &json!({ "error": text }))
}
