//! Tests which route is found for a host, path and method.

use super::*;

fn table(routes: &[(&str, &'static str)]) -> RouteTable<&'static str> {
    let mut table = RouteTable::default();
    for (path, name) in routes {
        let pattern = Pattern::parse(path).unwrap();
        table.insert(None, &pattern, Methods::All, *name).unwrap();
    }
    table
}

#[test]
fn the_most_specific_segment_wins_with_backtracking() {
    let table = table(&[
        ("/", "root"),
        ("/api/{*rest}", "rest"),
        ("/api/{x}", "one"),
        ("/api/users", "users"),
        ("/api/users/me", "me"),
        ("/api/{x}/b", "b"),
        ("/{x}/c", "c"),
        ("/caf%C3%A9", "cafe"),
    ]);
    let find = |path| table.find(None, path, &Method::GET);
    let expected = [
        ("/", "root"),
        ("/api/users", "users"),
        ("/api/users/me", "me"),
        ("/api/users/b", "b"),
        ("/api/users/c", "rest"),
        ("/api/other", "one"),
        ("/api/", "rest"),
        ("/api/a/b/c/d", "rest"),
        ("/x/c", "c"),
        ("/caf%C3%A9", "cafe"),
    ];
    for (path, name) in expected {
        assert_eq!(find(path), Lookup::Route(name), "{path}");
    }
    for path in ["/api", "/x", "/x/c/", "//c"] {
        assert_eq!(find(path), Lookup::Nothing, "{path}");
    }
    let deep = format!("/api/{}", "a/".repeat(100));
    assert_eq!(find(&deep), Lookup::Route("rest"));
    assert_eq!(find(&"/a".repeat(100)), Lookup::Nothing);
}

#[test]
fn the_path_decides_before_the_method() {
    let mut table = RouteTable::default();
    let mut insert =
        |path: &str, methods, name| table.insert(None, &Pattern::parse(path).unwrap(), methods, name);
    let only = |method| Methods::Only(vec![method]);
    insert("/a", only(Method::GET), 1).unwrap();
    insert("/a", only(Method::POST), 2).unwrap();
    insert("/{*rest}", Methods::All, 3).unwrap();
    assert_eq!(insert("/a", only(Method::HEAD), 4), Err(1));
    assert_eq!(insert("/a", Methods::All, 5), Err(1));
    assert_eq!(insert("/{*other}", only(Method::GET), 6), Err(3));
    assert_eq!(table.find(None, "/a", &Method::HEAD), Lookup::Route(1));
    assert_eq!(table.find(None, "/a", &Method::POST), Lookup::Route(2));
    let refused = Lookup::OtherMethods("GET, HEAD, POST".to_owned());
    assert_eq!(table.find(None, "/a", &Method::PUT), refused);
    assert_eq!(table.find(None, "/b", &Method::PUT), Lookup::Route(3));
}

#[test]
fn a_host_has_its_own_routes_first() {
    let mut table = RouteTable::default();
    let path = Pattern::parse("/a").unwrap();
    table.insert(Some("API.example.com"), &path, Methods::All, 1).unwrap();
    table.insert(None, &path, Methods::All, 2).unwrap();
    for (host, route) in [("api.EXAMPLE.com:8080", 1), ("api.example.com", 1), ("[::1]:80", 2)] {
        assert_eq!(table.find(Some(host), "/a", &Method::GET), Lookup::Route(route));
    }
    assert_eq!(table.find(None, "/a", &Method::GET), Lookup::Route(2));
}

#[test]
fn wrong_patterns_say_why() {
    let wrong = ["a", "/{", "/{}", "/a{b}", "/{*r}/b", "/{a}/{a}", "/a//b", "/a/../b", "/a%"];
    for text in wrong {
        assert!(Pattern::parse(text).is_err(), "{text}");
    }
}

#[test]
fn globs_match_any_characters_dots_too() {
    let table = [
        ("people.*", "people.enrich", true),
        ("people.*", "phone.find", false),
        ("*", "a.b.c", true),
        ("*.find", "phone.find", true),
        ("a*b*c", "a-x-b-y-c", true),
        ("a*b*c", "a-x-c", false),
        ("a*a", "a", false),
        ("phone", "phone.find", false),
    ];
    for (pattern, name, expected) in table {
        assert_eq!(glob_matches(pattern, name), expected, "{pattern} {name}");
    }
}
