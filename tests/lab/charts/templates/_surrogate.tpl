{{- /* What all surrogate charts render with. No container of theirs ever runs: images are names. */ -}}

{{- define "surrogate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* metadata: root, name, namespace (empty for kinds without), labels, annotations, hook */ -}}
{{- define "surrogate.metadata" -}}
metadata:
  name: {{ .name | quote }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "surrogate.labels" .root | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $annotations := .annotations | default dict }}
  {{- if .hook }}
  {{- $annotations = merge (dict "helm.sh/hook" .hook "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded") $annotations }}
  {{- end }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* environment in any of the shapes that charts take: a list, text, or a map */ -}}
{{- define "surrogate.environment" -}}
{{- $root := .root }}
{{- range .env }}
{{- if kindIs "slice" . }}
{{- range . }}
- {{ tpl (toYaml .) $root | nindent 2 | trim }}
{{- end }}
{{- else if kindIs "string" . }}
{{- tpl . $root | nindent 0 }}
{{- else if kindIs "map" . }}
{{- range $name, $value := . }}
{{- if and (kindIs "map" $value) (hasKey $value "secret") }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $value.secret }}
      key: {{ $value.key }}
{{- else if kindIs "map" $value }}
- name: {{ $name }}
  valueFrom:
    {{- toYaml $value | nindent 4 }}
{{- else }}
- name: {{ $name }}
  value: {{ tpl (toString $value) $root | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "surrogate.either" -}}
{{- tpl (ternary .value (toYaml .value) (kindIs "string" .value)) .root }}
{{- end }}

{{- /* resources as Kubernetes has them, also from Linkerd's shape: by resource, then limit and request */ -}}
{{- define "surrogate.resources" -}}
{{- $resources := . }}
{{- if or .limits .requests .claims }}
{{- toYaml . }}
{{- else }}
{{- range $bound := list "limit" "request" }}
{{- $given := dict }}
{{- range $name, $section := $resources }}
{{- with get $section $bound }}
{{- $_ := set $given $name . }}
{{- end }}
{{- end }}
{{ toYaml (dict (printf "%ss" $bound) $given) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* pod: root, base (values of this part), name, containers, image, digest, env, envFrom, secrets, configs, host, account, restart */ -}}
{{- define "surrogate.pod" -}}
{{- $root := .root }}
{{- $base := .base }}
{{- $podSecurity := $base.podSecurityContext }}
{{- $security := $base.containerSecurityContext | default $base.securityContext }}
{{- if not (hasKey $base "podSecurityContext") }}
{{- $podSecurity = $base.securityContext }}
{{- $security = $base.containerSecurityContext }}
{{- end }}
{{- $security = omit ($security | default dict) "enabled" }}
{{- with $security.capabilities }}
{{- /* Some charts list capabilities by container there. */}}
{{- $security = merge (dict "capabilities" (pick . "add" "drop")) (omit $security "capabilities") }}
{{- end }}
metadata:
  labels:
    app.kubernetes.io/name: {{ $root.Chart.Name }}
    app.kubernetes.io/instance: {{ $root.Release.Name }}
    app.kubernetes.io/component: {{ .component }}
    {{- if eq .root.Chart.Name "cilium" }}
    k8s-app: {{ .component }}
    {{- end }}
    {{- with $base.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    picluster.io/surrogate: "true"
    picluster.io/values: {{ .digest }}
    {{- with $base.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- if .account }}
  serviceAccountName: {{ .account }}
  {{- end }}
  {{- if .host }}
  hostNetwork: true
  {{- end }}
  {{- with .restart }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- if kindIs "string" $base.priorityClassName }}
  {{- with $base.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
  {{- with get $base $key }}
  {{ $key }}:
    {{- include "surrogate.either" (dict "root" $root "value" .) | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with omit ($podSecurity | default dict) "enabled" }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    {{- $dot := . }}
    {{- $image := .image }}
    {{- if kindIs "map" $base.image }}
    {{- with $base.image.tag }}
    {{- $image = printf "%s:%v" (regexReplaceAll "(:[^/:@]*)?(@.*)?$" $image "") . }}
    {{- end }}
    {{- end }}
    {{- range $number, $name := .containers }}
    - name: {{ $name }}
      image: {{ $image }}
      {{- with $security }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if and (eq $number 0) (kindIs "map" $base.resources) $base.resources }}
      resources:
        {{- include "surrogate.resources" $base.resources | nindent 8 }}
      {{- end }}
      {{- if eq $number 0 }}
      {{- with include "surrogate.environment" (dict "root" $root "env" $dot.env) | trim }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      {{- range $dot.envFrom }}
      {{- with . }}
      envFrom:
        {{- include "surrogate.either" (dict "root" $root "value" .) | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- if or $dot.secrets $dot.configs }}
      volumeMounts:
        {{- range $dot.secrets }}
        - name: {{ printf "secret-%s" . | trunc 63 | trimSuffix "-" }}
          mountPath: /etc/secrets/{{ . }}
          readOnly: true
        {{- end }}
        {{- range $dot.configs }}
        - name: {{ printf "config-%s" . | trunc 63 | trimSuffix "-" }}
          mountPath: /etc/configs/{{ . }}
          readOnly: true
        {{- end }}
      {{- end }}
      {{- end }}
    {{- end }}
  {{- $mounted := and .claim .claim.enabled (ne .kind "StatefulSet") }}
  {{- if or .secrets .configs .paths $mounted }}
  volumes:
    {{- if $mounted }}
    - name: {{ .claim.name }}
      persistentVolumeClaim:
        claimName: {{ .name }}
    {{- end }}
    {{- range .secrets }}
    - name: {{ printf "secret-%s" . | trunc 63 | trimSuffix "-" }}
      secret:
        secretName: {{ . }}
    {{- end }}
    {{- range .configs }}
    - name: {{ printf "config-%s" . | trunc 63 | trimSuffix "-" }}
      configMap:
        name: {{ . }}
    {{- end }}
    {{- range $number, $path := .paths }}
    - name: host-{{ $number }}
      hostPath:
        path: {{ $path }}
    {{- end }}
  {{- end }}
{{- end }}

{{- /* workload: kind, replicas, claims and all that surrogate.metadata and surrogate.pod take */ -}}
{{- define "surrogate.workload" -}}
{{- $selector := dict "app.kubernetes.io/name" .root.Chart.Name "app.kubernetes.io/instance" .root.Release.Name "app.kubernetes.io/component" .component }}
---
apiVersion: {{ ternary "batch/v1" "apps/v1" (has .kind (list "Job" "CronJob")) }}
kind: {{ .kind }}
{{ include "surrogate.metadata" (merge (dict "labels" (dict "app.kubernetes.io/component" .component)) .) }}
spec:
  {{- if eq .kind "CronJob" }}
  schedule: "0 0 * * *"
  jobTemplate:
    spec:
      template:
        {{- include "surrogate.pod" (merge (dict "restart" "Never") .) | nindent 8 }}
  {{- else if eq .kind "Job" }}
  template:
    {{- include "surrogate.pod" (merge (dict "restart" "Never") .) | nindent 4 }}
  {{- else }}
  {{- if ne .kind "DaemonSet" }}
  replicas: {{ .replicas }}
  {{- end }}
  {{- if eq .kind "StatefulSet" }}
  serviceName: {{ .name }}
  {{- end }}
  selector:
    matchLabels:
      {{- toYaml $selector | nindent 6 }}
  template:
    {{- include "surrogate.pod" . | nindent 4 }}
  {{- if and .claim.enabled (eq .kind "StatefulSet") }}
  volumeClaimTemplates:
    - metadata:
        name: {{ .claim.name }}
      spec:
        {{- include "surrogate.claim" .claim | nindent 8 }}
  {{- end }}
  {{- end }}
{{- if and .claim.enabled (ne .kind "StatefulSet") }}
---
apiVersion: v1
kind: PersistentVolumeClaim
{{ include "surrogate.metadata" . }}
spec:
  {{- include "surrogate.claim" .claim | nindent 2 }}
{{- end }}
{{- end }}

{{- define "surrogate.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .class }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}

{{- /* service: root, name, namespace, labels, component (of the pods), ports (name:number), values (of this Service), type */ -}}
{{- define "surrogate.service" -}}
{{- $values := .values }}
{{- $extra := $values.spec | default dict }}
---
apiVersion: v1
kind: Service
{{ include "surrogate.metadata" (merge (dict "annotations" ($values.annotations | default dict)) .) }}
{{- $type := $values.type | default $extra.type | default .type }}
spec:
  type: {{ $type }}
  {{- if ne $type "ClusterIP" }}
  {{- range $key := list "loadBalancerIP" "loadBalancerClass" "externalTrafficPolicy" }}
  {{- with get $values $key | default (get $extra $key) }}
  {{ $key }}: {{ . }}
  {{- end }}
  {{- end }}
  {{- end }}
  selector:
    app.kubernetes.io/name: {{ .root.Chart.Name }}
    app.kubernetes.io/instance: {{ .root.Release.Name }}
    app.kubernetes.io/component: {{ .component }}
  ports:
    {{- range .ports }}
    {{- $parts := splitList ":" . }}
    - name: {{ index $parts 0 }}
      port: {{ index $parts 1 }}
    {{- end }}
{{- end }}

{{- /* monitor: kind, port, selector and all that surrogate.metadata takes; values are those of the switch */ -}}
{{- define "surrogate.monitor" -}}
{{- $values := .values }}
---
apiVersion: monitoring.coreos.com/v1
kind: {{ .kind }}
{{ include "surrogate.metadata" (merge (dict "labels" (merge (dict) ($values.labels | default dict) ($values.additionalLabels | default dict))) (omit . "labels")) }}
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: {{ .root.Chart.Name }}
      app.kubernetes.io/instance: {{ .root.Release.Name }}
  {{ ternary "podMetricsEndpoints" "endpoints" (eq .kind "PodMonitor") }}:
    - port: {{ .port }}
      {{- with $values.interval }}
      interval: {{ . }}
      {{- end }}
{{- end }}

{{- /* webhooks: kind, service, path, hooks (name, policy, groups, resources, operations, selector) */ -}}
{{- define "surrogate.webhooks" -}}
{{- $dot := . }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: {{ .kind }}
{{ include "surrogate.metadata" . }}
webhooks:
  {{- range .hooks }}
  - name: {{ .name }}
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: {{ .policy }}
    clientConfig:
      service:
        name: {{ $dot.service }}
        namespace: {{ $dot.serviceNamespace }}
        path: {{ .path }}
        port: 443
    {{- with .selector }}
    namespaceSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    rules:
      - apiGroups: {{ toJson .groups }}
        apiVersions: ["*"]
        operations: {{ toJson .operations }}
        resources: {{ toJson .resources }}
  {{- end }}
{{- end }}
