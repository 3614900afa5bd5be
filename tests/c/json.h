/* Reads JSON: enough to check a file that is made of it. */
#ifndef JSON_H
#define JSON_H
#include "test.h"

/* Goes behind one value; NULL: it is none. */
static const char *json_value(const char *at);
static inline const char *json_space(const char *at) { return at + strspn(at, " \t\r\n"); }
static inline const char *json_text(const char *at) {
    if (*at++ != '"') return NULL;
    for (; *at != '"'; at++) {
        if ((unsigned char)*at < ' ') return NULL;
        if (*at != '\\') continue;
        at++;
        if (*at == 'u') {
            if (strspn(at + 1, "0123456789abcdefABCDEF") < 4) return NULL;
            at += 4;
        } else if (*at == 0 || strchr("\"\\/bfnrt", *at) == NULL) return NULL;
    }
    return at + 1;
}
static inline const char *json_digits(const char *at) {
    const size_t digits = strspn(at, "0123456789");
    return digits > 0 ? at + digits : NULL;
}
static inline const char *json_number(const char *at) {
    at += *at == '-';
    if (at[0] == '0' && at[1] >= '0' && at[1] <= '9') return NULL;
    at = json_digits(at);
    if (at != NULL && *at == '.') at = json_digits(at + 1);
    if (at != NULL && (*at == 'e' || *at == 'E')) at++, at += *at == '-' || *at == '+', at = json_digits(at);
    return at;
}
static const char *json_list(const char *at, char end, int named) {
    at = json_space(at + 1);
    if (*at == end) return at + 1;
    for (;;) {
        if (named) {
            at = json_text(at);
            if (at == NULL || *(at = json_space(at)) != ':') return NULL;
            at++;
        }
        if ((at = json_value(at)) == NULL) return NULL;
        at = json_space(at);
        if (*at == end) return at + 1;
        if (*at != ',') return NULL;
        at = json_space(at + 1);
    }
}
static const char *json_value(const char *at) {
    static const char *const words[] = { "true", "false", "null" };
    at = json_space(at);
    if (*at == '{') return json_list(at, '}', 1);
    if (*at == '[') return json_list(at, ']', 0);
    if (*at == '"') return json_text(at);
    for (int i = 0; i < 3; i++)
        if (strncmp(at, words[i], strlen(words[i])) == 0) return at + strlen(words[i]);
    return json_number(at);
}
/* The value of a field of the object at `object`, or NULL. */
static inline const char *json_field(const char *object, const char *name) {
    for (const char *at = json_space(object + 1); at != NULL && *at == '"'; at = json_space(at + (*at == ','))) {
        const size_t length = strlen(name);
        const int found = strncmp(at + 1, name, length) == 0 && at[length + 1] == '"';
        if ((at = json_text(at)) == NULL) return NULL;
        at = json_space(json_space(at) + 1);
        if (found) return at;
        if ((at = json_value(at)) == NULL) return NULL;
        at = json_space(at);
    }
    return NULL;
}
static inline int json_is(const char *object, const char *name, const char *text) {
    const char *value = json_field(object, name);
    const size_t length = strlen(text);
    return value != NULL && *value == '"' && strncmp(value + 1, text, length) == 0 && value[length + 1] == '"';
}
static inline double json_double(const char *object, const char *name) {
    const char *value = json_field(object, name);
    CHECK(value != NULL && json_number(value) != NULL);
    return strtod(value, NULL);
}
#endif
