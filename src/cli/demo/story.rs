//! What goes wrong on an LLM platform, and how people deal with it.

/// A kind of incident; `{}` in its texts is its subject.
pub struct Story {
    pub source: &'static str,
    pub incident_type: &'static str,
    /// Whether monitoring notices first, by alerts, or somebody opens the incident.
    pub by_alert: bool,
    pub title: &'static str,
    pub description: &'static str,
    /// What it may happen to.
    pub subjects: &'static [&'static str],
    /// How bad it may be at first.
    pub severities: &'static [&'static str],
    /// What the responders write while they look into it, in this order.
    pub findings: &'static [&'static str],
    pub root_cause: &'static str,
    pub resolution: &'static str,
}

/// Who is on call.
pub const RESPONDERS: [&str; 5] = ["amara", "jonas", "mei", "priya", "tomasz"];

pub const STORIES: [Story; 9] = [
    Story {
        source: "demo/gateway",
        incident_type: "PERFORMANCE",
        by_alert: true,
        title: "Latency budget of {} burns 14 times too fast",
        description: "p99 time to first token is above 2.5 s; at this rate the month's budget is gone in two days.",
        subjects: &["chat-completions", "embeddings", "batch-inference"],
        severities: &["P1", "P2"],
        findings: &[
            "Only requests over 32k tokens are slow; short prompts look normal.",
            "Prefill queue is ten times its usual length since the last rollout.",
        ],
        root_cause: "The rollout halved the prefill batch size.",
        resolution: "Rolled back; p99 is at 0.9 s again.",
    },
    Story {
        source: "demo/serving",
        incident_type: "MODEL_DRIFT",
        by_alert: true,
        title: "Answers of {} drift from their baseline",
        description: "Population stability index of the output embeddings is 0.31 over the last hour; 0.2 is the limit.",
        subjects: &["support-assistant-v7", "summarizer-v3", "code-reviewer-v2"],
        severities: &["P2", "P3"],
        findings: &[
            "Traffic has shifted: a new customer sends mostly Portuguese.",
            "On the old traffic mix the index is 0.08, so the model itself is unchanged.",
        ],
        root_cause: "A new language in the traffic, not a change of the model.",
        resolution: "The baseline now covers the new mix.",
    },
    Story {
        source: "demo/guardrails",
        incident_type: "PROMPT_INJECTION",
        by_alert: true,
        title: "Spike of prompt injection attempts against {}",
        description: "The classifier flags 4.1 % of requests, usually 0.2 %; most carry the same hidden instruction in a PDF.",
        subjects: &["document-qa", "web-browsing-agent", "mail-triage-agent"],
        severities: &["P0", "P1"],
        findings: &[
            "All from eleven accounts that were opened today.",
            "No tool call with side effects got through; two system prompts were echoed.",
        ],
        root_cause: "Text extracted from PDFs was not marked as untrusted.",
        resolution: "Extracted text is fenced and filtered; the accounts are suspended.",
    },
    Story {
        source: "demo/gpu-scheduler",
        incident_type: "INFRASTRUCTURE",
        by_alert: true,
        title: "GPU pool {} is exhausted",
        description: "No free accelerators for 10 minutes; 23 pods are pending, autoscaling is at its limit.",
        subjects: &["h100-eu-west", "h100-us-east", "l40s-spot"],
        severities: &["P0", "P1", "P2"],
        findings: &[
            "Nine cards hold finished fine-tuning jobs whose pods never ended.",
            "Evicted the finished jobs; the queue is draining.",
        ],
        root_cause: "A sidecar kept finished job pods alive.",
        resolution: "The sidecar ends with its job; a pod without work is evicted after 5 minutes.",
    },
    Story {
        source: "demo/evals",
        incident_type: "MODEL_QUALITY",
        by_alert: false,
        title: "Nightly evaluation of {} regressed",
        description: "Pass rate fell from 87 % to 79 %; the largest loss is in multi-step arithmetic.",
        subjects: &["support-assistant-v8-rc1", "code-reviewer-v3-rc2", "router-small"],
        severities: &["P2", "P3"],
        findings: &["The same checkpoint passes with last week's chat template."],
        root_cause: "The chat template lost its end-of-turn token.",
        resolution: "Template restored; the candidate passes at 88 %.",
    },
    Story {
        source: "demo/vector-store",
        incident_type: "DATA",
        by_alert: true,
        title: "Index {} lags behind its documents",
        description: "The newest searchable document is 47 minutes old; answers cite superseded pages.",
        subjects: &["help-center", "contracts", "product-catalogue"],
        severities: &["P2", "P3"],
        findings: &["One shard compacts without end; the writers wait for it."],
        root_cause: "A shard had outgrown its compaction memory.",
        resolution: "Split the shard; the lag is below 10 s.",
    },
    Story {
        source: "demo/billing",
        incident_type: "COST",
        by_alert: false,
        title: "Token spend of {} is far above forecast",
        description: "The last hour cost 6 times what the forecast says for it.",
        subjects: &["research-sandbox", "partner-api", "internal-agents"],
        severities: &["P2", "P3", "P4"],
        findings: &[
            "One agent calls itself: 40 turns for each request.",
            "Capped the turns; spend is back below forecast.",
        ],
        root_cause: "The agent had no limit of turns.",
        resolution: "Agents stop after 12 turns unless they are given more.",
    },
    Story {
        source: "demo/gateway",
        incident_type: "AVAILABILITY",
        by_alert: true,
        title: "Provider quota for {} is used up",
        description: "Every third request is refused with 429; retries make it worse.",
        subjects: &["fallback-large", "fallback-small", "speech-to-text"],
        severities: &["P1", "P2"],
        findings: &["The nightly batch shares the quota with interactive traffic."],
        root_cause: "Batch and interactive traffic share one quota.",
        resolution: "The batch has a quota of its own, and waits.",
    },
    Story {
        source: "demo/moderation",
        incident_type: "CONTENT_SAFETY",
        by_alert: false,
        title: "Complaints about unsafe answers of {}",
        description: "Three reports within an hour, all in role-play conversations of more than 60 turns.",
        subjects: &["companion-beta", "story-writer", "tutor"],
        severities: &["P1", "P2"],
        findings: &[
            "The filter sees only the last 20 turns.",
            "Reproduced; the window will cover the whole conversation.",
        ],
        root_cause: "The filter's window was shorter than the conversations.",
        resolution: "The filter reads whole conversations; the reported answers are withdrawn.",
    },
];
