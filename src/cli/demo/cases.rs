//! The requests of the self-test and the responses that they must get, in the exact words of the API documentation of
//! ApiOne and Enrow.

use super::client::SampleCall;

/// The key that a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearer {
    Nobody,
    /// A key that does not exist: the example key of ApiOne's documentation.
    Stranger,
    Demo,
    Trial,
    NearlyEmpty,
}

/// A condition that a response must meet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// The response body is exactly this text.
    Body(&'static str),
    /// The JSON body has this text at this JSON pointer.
    Says(&'static str, &'static str),
    /// The header has this value.
    Header(&'static str, &'static str),
    /// The header is absent.
    No(&'static str),
    /// The response reports this charge, and a balance that is lower by exactly this amount.
    Costs(&'static str),
    /// `credits` in the body is the opening balance minus the charges of all responses so far.
    Balance,
    /// The `RateLimit` header reports this many remaining requests.
    Left(u32),
    /// `Retry-After` is from 1 to the longest wait of the limit in seconds, and `RateLimit` has the same number.
    RetryAfter,
    /// The body has the number of `Retry-After` as a member and in its message.
    RetryAfterInBody,
}

use Bearer::{Demo, NearlyEmpty, Nobody, Stranger, Trial};
use Check::{Balance, Body, Costs, Header, Left, No, RetryAfter, RetryAfterInBody, Says};

/// One request, and the conditions that its response must meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) title: &'static str,
    pub(super) call: SampleCall,
    pub(super) bearer: Bearer,
    pub(super) status: u16,
    pub(super) checks: &'static [Check],
}

const fn case(
    title: &'static str,
    call: SampleCall,
    bearer: Bearer,
    status: u16,
    checks: &'static [Check],
) -> Case {
    Case { title, call, bearer, status, checks }
}

const fn post(path: &'static str, body: &'static str) -> SampleCall {
    SampleCall { path, body: Some(body) }
}

pub(super) const PERSON: SampleCall =
    post("/api/v1/people/enrich", r#"{"name": "John Doe", "domain": "example.com"}"#);
pub(super) const UNKNOWN_PERSON: SampleCall =
    post("/api/v1/people/enrich", r#"{"name": "Jane Nobody", "domain": "example.com"}"#);
const COMPANY: SampleCall = post("/api/v1/companies/enrich", r#"{"domain": "example.com"}"#);
const FIND: SampleCall =
    post("/email/find/single", r#"{"fullname": "John Doe", "company_domain": "example.com"}"#);
/// The id of a search contains the result of the search in hexadecimal.
const FOUND: SampleCall =
    SampleCall { path: "/email/find/single?id=find_6a6f686e2e646f65406578616d706c652e636f6d", body: None };
pub(super) const VERIFY: SampleCall = post("/email/verify/single", r#"{"email": "john.doe@example.com"}"#);
pub(super) const PHONE: SampleCall = post("/phone/single", r#"{"fullname": "John Doe"}"#);
const UNKNOWN_PHONE: SampleCall = post("/phone/single", r#"{"fullname": "Jane Nobody"}"#);
pub(super) const ACCOUNT: SampleCall = SampleCall { path: "/account/info", body: None };

const CHALLENGE: Check = Header("www-authenticate", r#"ApiKey realm="tollgate""#);
const POLICY: Check = Header("ratelimit-policy", r#""per-minute";q=3;w=60"#);
const FREE: Check = Costs("0");

/// The cases of both dialects. They must run in this order, because balances and limits continue from one case to the
/// next.
pub(super) const DIALECTS: [(&str, &[Case]); 2] = [("apione", APIONE), ("enrow", ENROW)];

const APIONE: &[Case] = &[
    case(
        "no key",
        PERSON,
        Nobody,
        401,
        &[Says("/code", "invalid_api_key"), Says("/status", "error"), CHALLENGE, No("x-credits-used")],
    ),
    case(
        "a wrong key",
        PERSON,
        Stranger,
        401,
        &[
            Says("/code", "invalid_api_key"),
            Says("/message", "Invalid or missing API key"),
            CHALLENGE,
            No("x-credits-used"),
        ],
    ),
    case("the balance before", ACCOUNT, Demo, 200, &[Balance]),
    case(
        "a person is found: 4 credits",
        PERSON,
        Demo,
        200,
        &[Says("/status", "success"), Says("/person/email", "john.doe@example.com"), Costs("4")],
    ),
    case(
        "a person that nobody knows: 1 credit, 3 of the 4 held return",
        UNKNOWN_PERSON,
        Demo,
        404,
        &[Says("/code", "not_found"), Costs("1")],
    ),
    case("a company: 1 credit", COMPANY, Demo, 200, &[Says("/company/name", "Example"), Costs("1")]),
    case("the balance after", ACCOUNT, Demo, 200, &[Balance]),
    case("a key with 3 requests a minute: the first", COMPANY, Trial, 200, &[POLICY, Left(2), Costs("1")]),
    case("the second", COMPANY, Trial, 200, &[POLICY, Left(1), Costs("1")]),
    case("the third", COMPANY, Trial, 200, &[POLICY, Left(0), Costs("1")]),
    case(
        "the fourth: the limit is reached, and nothing charged",
        COMPANY,
        Trial,
        429,
        &[Says("/code", "rate_limit_exceeded"), RetryAfter, RetryAfterInBody, POLICY, FREE],
    ),
    case("an account with 5 credits: one person", PERSON, NearlyEmpty, 200, &[Costs("4")]),
    case(
        "the balance has run dry: 4 are needed, 1 is left",
        PERSON,
        NearlyEmpty,
        403,
        &[
            Says("/code", "insufficient_credits"),
            Says("/message", "Your account has no remaining credits"),
            FREE,
        ],
    ),
];

const ENROW: &[Case] = &[
    case(
        "no key",
        VERIFY,
        Nobody,
        401,
        &[Body(r#"{"message":"No apikey found in the x-api-key headers"}"#), CHALLENGE, No("x-credits-used")],
    ),
    case(
        "a wrong key",
        VERIFY,
        Stranger,
        401,
        &[Body(r#"{"message":"This apikey is not valid"}"#), CHALLENGE, No("x-credits-used")],
    ),
    case("the balance before", ACCOUNT, Demo, 200, &[Balance]),
    case(
        "an address is verified: a quarter of a credit",
        VERIFY,
        Demo,
        200,
        &[Says("/qualification", "valid"), Costs("0.25")],
    ),
    case(
        "a search for an address: 1 credit",
        FIND,
        Demo,
        200,
        &[Says("/id", "find_6a6f686e2e646f65406578616d706c652e636f6d"), Costs("1")],
    ),
    case("its result, by the id: free", FOUND, Demo, 200, &[Says("/email", "john.doe@example.com"), FREE]),
    case(
        "a phone number is found: 40 credits, as the upstream says",
        PHONE,
        Demo,
        200,
        &[Says("/qualification", "found"), Costs("40")],
    ),
    case(
        "none is found: the 40 held return",
        UNKNOWN_PHONE,
        Demo,
        200,
        &[Says("/qualification", "not_found"), FREE],
    ),
    case("the balance after", ACCOUNT, Demo, 200, &[Balance]),
    case(
        "the key with 3 requests a minute: the limit is still reached",
        VERIFY,
        Trial,
        429,
        &[Body(r#"{"message":"Rate limit exceeded"}"#), RetryAfter, POLICY, FREE],
    ),
    case("its balance: neither refusal cost anything", ACCOUNT, Trial, 200, &[Balance]),
    case(
        "the balance that has run dry: 40 are needed, 1 is left",
        PHONE,
        NearlyEmpty,
        402,
        &[
            Body(r#"{"message":"Your credit balance is insufficient. Please top up or upgrade your plan."}"#),
            FREE,
        ],
    ),
    case("that balance: neither refusal cost anything", ACCOUNT, NearlyEmpty, 200, &[Balance]),
];
