//! The questions in a report: the gateways asked, and their answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::guest::gateway::Source;
use crate::proof::answer::AnsweredBy;

/// One question of an announcement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inquired {
    /// The gateway that was asked.
    pub gateway: IpAddr,
    /// The guest's address that asked.
    #[serde(rename = "for")]
    pub guest: IpAddr,
    /// Where the gateway is recorded.
    pub source: Source,
    /// How often it was asked.
    pub asked: u32,
    /// The first answer.
    #[serde(flatten, with = "flat")]
    pub answer: Option<Answer>,
}

/// The first answer to a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// From the event to the answer.
    pub after_ms: f64,
    /// Its origin, if known.
    pub by: Option<AnsweredBy>,
}

/// An answer as two keys, both null without one.
mod flat {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Answer, AnsweredBy};

    #[derive(Serialize, Deserialize)]
    struct Flat {
        answered_after_ms: Option<f64>,
        answered_by: Option<AnsweredBy>,
    }

    pub(super) fn serialize<S: Serializer>(answer: &Option<Answer>, to: S) -> Result<S::Ok, S::Error> {
        let (answered_after_ms, by) = answer.map(|answer| (answer.after_ms, answer.by)).unzip();
        Flat { answered_after_ms, answered_by: by.flatten() }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Answer>, D::Error> {
        let Flat { answered_after_ms, answered_by } = Flat::deserialize(from)?;
        Ok(answered_after_ms.map(|after_ms| Answer { after_ms, by: answered_by }))
    }
}

/// `192.0.2.1 answered after 4.2 ms (network)` for each gateway that answered, in one line.
pub(crate) fn answers(asked: &[Inquired]) -> Option<String> {
    let mut words: Vec<String> = Vec::new();
    for (gateway, answer) in by_gateway(asked) {
        words.extend(answer.map(|Answer { after_ms, by }| {
            let by = by.map(|by| format!(" ({})", by.word())).unwrap_or_default();
            format!("{gateway} answered after {after_ms} ms{by}")
        }));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// The gateways that certainly are gateways and have not answered.
pub(crate) fn silent(asked: &[Inquired]) -> Vec<IpAddr> {
    let is_certain =
        |gateway: &IpAddr| asked.iter().any(|asked| asked.gateway == *gateway && asked.source.is_certain());
    let silent = by_gateway(asked).into_iter().filter(|(_, answer)| answer.is_none());
    silent.map(|(gateway, _)| gateway).filter(is_certain).collect()
}

/// Every gateway, with the first answer to any of the guest's addresses.
fn by_gateway(asked: &[Inquired]) -> Vec<(IpAddr, Option<Answer>)> {
    let mut all: Vec<(IpAddr, Option<Answer>)> = Vec::new();
    for Inquired { gateway, answer, .. } in asked {
        match all.iter_mut().find(|(known, _)| known == gateway) {
            Some((_, first)) => {
                let answers = [*first, *answer].into_iter().flatten();
                *first = answers.min_by(|a, b| a.after_ms.total_cmp(&b.after_ms));
            }
            None => all.push((*gateway, *answer)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inquired(gateway: &str, guest: &str, source: Source, after_ms: Option<f64>) -> Inquired {
        let answer = after_ms.map(|after_ms| Answer { after_ms, by: Some(AnsweredBy::Network) });
        Inquired {
            gateway: gateway.parse().unwrap(),
            guest: guest.parse().unwrap(),
            source,
            asked: 10,
            answer,
        }
    }

    #[test]
    fn each_gateway_is_listed_with_its_first_answer() {
        let gateways = vec![
            inquired("192.0.2.1", "192.0.2.10", Source::Network, Some(7.5)),
            inquired("192.0.2.1", "192.0.2.11", Source::Network, Some(4.5)),
            inquired("192.0.2.2", "192.0.2.10", Source::Configuration, None),
            inquired("2001:db8::", "2001:db8::10", Source::Anycast, None),
        ];
        assert_eq!(answers(&gateways).as_deref(), Some("192.0.2.1 answered after 4.5 ms (network)"));
        assert_eq!(
            silent(&gateways),
            ["192.0.2.2".parse::<IpAddr>().unwrap()],
            "an anycast router is not certain to exist"
        );
        assert_eq!(answers(&[]), None);
    }

    #[test]
    fn an_answer_is_read_back_as_written() {
        let answered = inquired("192.0.2.1", "192.0.2.10", Source::DomainRoute, Some(7.5));
        let expected = serde_json::json!({
            "gateway": "192.0.2.1", "for": "192.0.2.10", "source": "domain-route", "asked": 10,
            "answered_after_ms": 7.5, "answered_by": "network",
        });
        let silent = Inquired { answer: None, ..answered.clone() };
        assert_eq!(serde_json::to_value(&answered).unwrap(), expected);
        for inquired in [answered, silent] {
            let text = serde_json::to_string(&inquired).unwrap();
            assert_eq!(serde_json::from_str::<Inquired>(&text).unwrap(), inquired);
        }
    }
}
