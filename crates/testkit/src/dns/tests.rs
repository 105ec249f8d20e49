//! The scripted name server, asked as a client would.

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RData};

use super::*;

async fn ask(server: &DnsServer, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let mut request = Message::query();
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    socket.send_to(&request.to_vec().unwrap(), server.address()).await.unwrap();
    let mut buffer = [0; 2048];
    let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

#[tokio::test]
async fn records_aliases_and_absence() {
    let server = DnsServer::start().await;
    server
        .mx("example.test", 10, "mx.example.test")
        .address_of("mx.example.test", "192.0.2.1")
        .cname("www.example.test", "mx.example.test.");
    assert_eq!(ask(&server, "Example.TEST.", RecordType::MX).await.answers.len(), 1);
    assert_eq!(ask(&server, "www.example.test.", RecordType::A).await.answers.len(), 2);
    let no_data = ask(&server, "mx.example.test.", RecordType::AAAA).await;
    assert_eq!((no_data.metadata.response_code, no_data.answers.len(), no_data.authorities.len()), (ResponseCode::NoError, 0, 1));
    assert_eq!(ask(&server, "nowhere.test.", RecordType::A).await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(ask(&server, "test.", RecordType::A).await.metadata.response_code, ResponseCode::NoError);
    server.remove("mx.example.test").address_of("mx.example.test", "192.0.2.2");
    let changed = ask(&server, "mx.example.test.", RecordType::A).await;
    assert_eq!(changed.answers[0].data, RData::A("192.0.2.2".parse().unwrap()));
    assert_eq!(server.questions("mx.example.test", RecordType::A, 1).await, 1);
}

#[tokio::test]
async fn misbehaviour_and_repentance() {
    let server = DnsServer::start().await;
    server.address_of("a.test", "192.0.2.1");
    for (how, code) in [
        (Misbehaviour::ServFail, ResponseCode::ServFail),
        (Misbehaviour::Refused, ResponseCode::Refused),
        (Misbehaviour::NxDomain, ResponseCode::NXDomain),
    ] {
        server.misbehave("a.test", Some(RecordType::A), how);
        assert_eq!(ask(&server, "a.test.", RecordType::A).await.metadata.response_code, code);
    }
    server.behave("a.test");
    assert_eq!(ask(&server, "a.test.", RecordType::A).await.answers.len(), 1);
    server.misbehave("a.test", None, Misbehaviour::Silence);
    tokio::select! {
        _ = ask(&server, "a.test.", RecordType::A) => panic!("silence was to be kept"),
        n = server.questions("a.test", RecordType::A, 5) => assert_eq!(n, 5),
    }
}

#[tokio::test]
async fn large_answers_come_over_tcp() {
    let server = DnsServer::start().await;
    server.txt("big.test", &"x".repeat(40_000));
    assert!(ask(&server, "big.test.", RecordType::TXT).await.metadata.truncation);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let mut request = Message::query();
    request.add_query(Query::query(Name::from_ascii("big.test.").unwrap(), RecordType::TXT));
    let packet = request.to_vec().unwrap();
    stream.write_u16(u16::try_from(packet.len()).unwrap()).await.unwrap();
    stream.write_all(&packet).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    let RData::TXT(text) = &answer.answers[0].data else { panic!("no text") };
    assert_eq!(text.txt_data.iter().map(|s| s.len()).sum::<usize>(), 40_000);
    assert_eq!(server.asked_over_tcp(), 1);
}
