# Managed by privnet. forwarder.pl ADDRESS#PORT...: carries a resolver's questions to the servers of dns.upstream, and their
# answers back. systemd opened its sockets in the resolver's namespace, one for UDP and one for TCP for each server: at 127.0.0.1
# for the first, at 127.0.0.2 for the second. To a server it opens a socket of the host's for each question. Of what it carries
# it reads a message's number and nothing else. Needs perl-base alone, which is on every Debian host.
use strict;
use warnings;
use POSIX qw(WNOHANG _SC_CLK_TCK sysconf);
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);

my $ANSWER_SECONDS = 10;
my $CONNECTION_SECONDS = 60;
my $QUESTIONS_AT_MOST = 500;
my $CONNECTIONS_AT_MOST = 100;
my $TICKS = sysconf(_SC_CLK_TCK);

my @servers = map { server_of(split /#/) } @ARGV;
my %listeners;    # by file number: socket, server, whether it is TCP's
my %questions;    # by file number of the socket to the server: socket, listener, asker, number, when it is given up
my $connections = 0;
my $waits = '';

sub now { return (POSIX::times())[0] / $TICKS }

sub server_of {
	my ($address, $port) = @_;
	my $v6 = inet_pton(AF_INET6, $address);
	return [AF_INET6, pack_sockaddr_in6($port, $v6)] if defined $v6;
	return [AF_INET, pack_sockaddr_in($port, inet_pton(AF_INET, $address))];
}

# A connected socket: nobody but the server is heard. Its port is another one each time.
sub reached {
	my ($server, $type) = @_;
	my ($family, $place) = @$server;
	socket(my $socket, $family, $type, 0) or return undef;
	return connect($socket, $place) ? $socket : undef;
}

sub listen_on {
	my ($number) = @_;
	open(my $socket, '+<&=', $number) or die "file $number: $!";
	my (undef, $address) = unpack_sockaddr_in(getsockname $socket);
	my $server = $servers[unpack('N', $address) - unpack('N', INADDR_LOOPBACK)] // die "no server for file $number\n";
	my $type = unpack('i', getsockopt($socket, SOL_SOCKET, SO_TYPE));
	$listeners{$number} = {socket => $socket, server => $server, tcp => $type == SOCK_STREAM};
	vec($waits, $number, 1) = 1;
}

sub ask {
	my ($listener) = @_;
	my $asker = recv($listener->{socket}, my $message, 65535, MSG_DONTWAIT) // return;
	return if keys %questions >= $QUESTIONS_AT_MOST;
	my $socket = reached($listener->{server}, SOCK_DGRAM) // return;
	send($socket, $message, 0) // return;
	my %question = (socket => $socket, listener => $listener->{socket}, asker => $asker);
	@question{'number', 'until'} = (substr($message, 0, 2), now() + $ANSWER_SECONDS);
	$questions{fileno $socket} = \%question;
	vec($waits, fileno $socket, 1) = 1;
}

sub answer {
	my ($question) = @_;
	my $server = recv($question->{socket}, my $message, 65535, MSG_DONTWAIT);
	return if !defined $server && $!{EAGAIN};
	# With another number it is forged, and the server's own answer may still come.
	return if defined $server && substr($message, 0, 2) ne $question->{number};
	send($question->{listener}, $message, MSG_DONTWAIT, $question->{asker}) if defined $server;
	give_up($question);
}

sub give_up {
	my ($question) = @_;
	vec($waits, fileno $question->{socket}, 1) = 0;
	delete $questions{fileno $question->{socket}};
}

# A process for each connection: questions over TCP are few, and one that hangs must not keep the others.
sub connection {
	my ($listener) = @_;
	accept(my $client, $listener->{socket}) or return;
	my $process = fork // return;
	if (!$process) {
		alarm $CONNECTION_SECONDS;
		my $server = reached($listener->{server}, SOCK_STREAM);
		carry($client, $server) if $server;
		POSIX::_exit(0);
	}
	$connections++;
}

sub carry {
	my @ends = @_;
	while (1) {
		my $ready = '';
		vec($ready, fileno $_, 1) = 1 for @ends;
		select($ready, undef, undef, undef);
		for my $end (0, 1) {
			next if !vec($ready, fileno $ends[$end], 1);
			sysread($ends[$end], my $data, 65536) or return;
			while (length $data) { substr($data, 0, syswrite($ends[1 - $end], $data) // return) = '' }
		}
	}
}

$SIG{PIPE} = 'IGNORE';
# It only ends a select.
$SIG{CHLD} = sub { };
listen_on($_) for 3 .. 2 + $ENV{LISTEN_FDS};
my $look = now();
while (1) {
	my $ready = $waits;
	for my $number (grep { $listeners{$_}{tcp} } keys %listeners) {
		vec($ready, $number, 1) = 0 if $connections >= $CONNECTIONS_AT_MOST;
	}
	my $count = select($ready, undef, undef, %questions || $connections ? 1 : undef);
	while ($connections && waitpid(-1, WNOHANG) > 0) { $connections-- }
	if (now() >= $look) {
		give_up($_) for grep { $_->{until} <= now() } values %questions;
		$look = now() + 1;
	}
	next if $count <= 0;
	my $bits = unpack('b*', $ready);
	for (my $number = index($bits, '1'); $number >= 0; $number = index($bits, '1', $number + 1)) {
		if (my $listener = $listeners{$number}) { $listener->{tcp} ? connection($listener) : ask($listener) }
		elsif (my $question = $questions{$number}) { answer($question) }
	}
}
