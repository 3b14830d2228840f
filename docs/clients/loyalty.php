<?php
// A client of the loyalty API, for PHP 8.1 or later without extensions.
//
//   LOYALTY_URL=https://… LOYALTY_TILL=store.server LOYALTY_PASSWORD=… php loyalty.php 8799361139

declare(strict_types=1);

/** The service refused a request. `codes` says why. */
final class Refused extends RuntimeException
{
    /**
     * @param int $status 0 if there was no answer
     * @param list<array{code: int, message: string}> $errors
     */
    public function __construct(
        public readonly int $status,
        array $errors = [],
        public readonly int $retryAfter = 1,
    ) {
        $messages = array_map(fn (array $error) => "{$error['code']} {$error['message']}", $errors);
        $this->codes = array_column($errors, 'code');
        parent::__construct(implode('; ', $messages) ?: "HTTP $status");
    }

    /** @var list<int> */
    public readonly array $codes;
}

final class Loyalty
{
    private const ATTEMPTS = 3;
    private ?string $token = null;
    private float $renewAt = 0;

    public function __construct(
        private readonly string $url,
        private readonly string $till,
        private readonly string $password,
    ) {
    }

    public function get(string $path, array $parameters): array
    {
        return $this->call('GET', "$path?" . http_build_query($parameters), null);
    }

    public function post(string $path, array $body = []): array
    {
        return $this->call('POST', $path, $body);
    }

    private function call(string $method, string $path, ?array $body): array
    {
        // The same key in every attempt, so that nothing happens twice.
        $key = $method === 'POST' ? ['Idempotency-Key: ' . bin2hex(random_bytes(16))] : [];
        $renewed = false;
        for ($attempt = 1; ;) {
            try {
                $headers = [...$key, 'X-CAP-API-OAUTH-TOKEN: ' . $this->validToken()];
                return $this->send($method, $path, $body, $headers);
            } catch (Refused $refusal) {
                if ($refusal->status === 401 && $this->token !== null && !$renewed) {
                    $renewed = true;
                    $this->token = null;
                    continue;
                }
                // With status 0, the answer was lost. The request may have been carried out.
                if (!in_array($refusal->status, [0, 503], true) || $attempt === self::ATTEMPTS) {
                    throw $refusal;
                }
                sleep($refusal->retryAfter);
                $attempt++;
            }
        }
    }

    private function validToken(): string
    {
        if ($this->token === null || microtime(true) >= $this->renewAt) {
            $this->token = null;
            $credentials = ['key' => $this->till, 'secret' => $this->password];
            $answer = $this->send('POST', '/v3/oauth/token/generate', $credentials, []);
            $this->token = $answer['data']['accessToken'];
            $this->renewAt = microtime(true) + $answer['data']['ttlSeconds'] - 10;
        }
        return $this->token;
    }

    /** @throws Refused if the answer is not a success, or there is none */
    private function send(string $method, string $path, ?array $body, array $headers): array
    {
        $content = $body === null ? '' : json_encode((object) $body, JSON_THROW_ON_ERROR);
        $http_response_header = [];
        $text = @file_get_contents($this->url . $path, false, stream_context_create(['http' => [
            'method' => $method,
            'header' => [...$headers, 'Content-Type: application/json'],
            'content' => $content,
            'timeout' => 15,
            // The body says more than the status.
            'ignore_errors' => true,
        ]]));
        if ($text === false || !preg_match('/^HTTP\S* (\d+)/', $http_response_header[0] ?? '', $found)) {
            throw new Refused(0);
        }
        $answer = json_decode($text, true);
        if ($found[1] === '200') {
            // Half an answer is none.
            return $answer ?? throw new Refused(0);
        }
        $wait = array_filter($http_response_header, fn (string $line) => stripos($line, 'Retry-After:') === 0);
        $wait = $wait ? (int) substr(reset($wait), strlen('Retry-After:')) : 1;
        throw new Refused((int) $found[1], $answer['errors'] ?? [], $wait);
    }
}

$mobile = $argv[1];
$loyalty = new Loyalty(getenv('LOYALTY_URL'), getenv('LOYALTY_TILL'), getenv('LOYALTY_PASSWORD'));
$customer = ['entityType' => 'MOBILE', 'entityValue' => $mobile, 'action' => 'POINTS'];
$channels = [['type' => 'SMS', 'value' => $mobile]];
echo 'issued ', $loyalty->post('/v2/otp/generate', [...$customer, 'channels' => $channels])['createdId'], "\n";
// Only what delivers codes itself needs to fetch them.
$fetch = ['source' => 'INSTORE', 'mobile' => $mobile, 'scope' => 'POINTS'];
$code = $loyalty->get('/v2/otp', [...$fetch, 'threshold' => 60])['code'];
echo "code $code\n";
echo 'valid ', json_encode($loyalty->post('/v2/otp/validate', [...$customer, 'code' => $code])['entity']), "\n";
echo 'number ', $loyalty->post('/v2/cardNumber')['entity'], "\n";
try {
    $loyalty->get('/v2/otp', $fetch);
} catch (Refused $refusal) {
    echo "refused {$refusal->status} {$refusal->getMessage()}\n";
}
